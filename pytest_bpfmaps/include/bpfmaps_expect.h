/* What a BPF program expects of the verifier, written at the program itself.
 *
 *	#include <bpfmaps_expect.h>
 *
 *	SEC("xdp")
 *	__failure __msg("outside of the packet")
 *	int reads_too_far(struct xdp_md *ctx) ...
 *
 * The names and what they mean are those of the kernel's own tests, so a program moves from here to there and
 * back; use either this header or the kernel's bpf_misc.h. clang 14 or later. See docs/expectations.md.
 */
#ifndef BPFMAPS_EXPECT_H
#define BPFMAPS_EXPECT_H

#define BPFMAPS_TEXT_(x) #x
#define BPFMAPS_TEXT(x) BPFMAPS_TEXT_(x)
/* the number keeps the tags in the order of the source, which compilers do not */
#define BPFMAPS_TAG(tag) __attribute__((btf_decl_tag("comment:" BPFMAPS_TEXT(__COUNTER__) ":" tag)))

/* loaded with all privileges */
#define __success BPFMAPS_TAG("test_expect_success")
#define __failure BPFMAPS_TAG("test_expect_failure")
#define __msg(text) BPFMAPS_TAG("test_expect_msg=" text)
#define __not_msg(text) BPFMAPS_TAG("test_expect_not_msg=" text)
#define __retval(value) BPFMAPS_TAG("test_retval=" BPFMAPS_TEXT(value))
#define __auxiliary BPFMAPS_TAG("test_auxiliary")

/* loaded without */
#define __success_unpriv BPFMAPS_TAG("test_expect_success_unpriv")
#define __failure_unpriv BPFMAPS_TAG("test_expect_failure_unpriv")
#define __msg_unpriv(text) BPFMAPS_TAG("test_expect_msg_unpriv=" text)
#define __not_msg_unpriv(text) BPFMAPS_TAG("test_expect_not_msg_unpriv=" text)
#define __retval_unpriv(value) BPFMAPS_TAG("test_retval_unpriv=" BPFMAPS_TEXT(value))
#define __auxiliary_unpriv BPFMAPS_TAG("test_auxiliary_unpriv")

/* both */
#define __description(text) BPFMAPS_TAG("test_description=" text)
#define __log_level(level) BPFMAPS_TAG("test_log_level=" BPFMAPS_TEXT(level))
#define __flag(flag) BPFMAPS_TAG("test_prog_flags=" #flag)
#define __arch_x86_64 BPFMAPS_TAG("test_arch=X86_64")
#define __arch_arm64 BPFMAPS_TAG("test_arch=ARM64")
#define __arch_riscv64 BPFMAPS_TAG("test_arch=RISCV64")
#define __arch_s390x BPFMAPS_TAG("test_arch=s390x")
#define __arch_loongarch BPFMAPS_TAG("test_arch=LOONGARCH")

#ifndef __naked
#define __naked __attribute__((naked))
#endif

#endif
