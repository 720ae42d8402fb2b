// Programs that trace, of each kind of target.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("tracepoint/sched/sched_process_exec")
int at_tracepoint(void *ctx)
{
	return 0;
}

SEC("raw_tracepoint/sched_switch")
int at_raw_tracepoint(void *ctx)
{
	return 0;
}

SEC("kprobe/do_unlinkat")
int at_kprobe(void *ctx)
{
	return 0;
}

SEC("kretprobe/do_unlinkat")
int at_kretprobe(void *ctx)
{
	return 0;
}

SEC("fentry/do_unlinkat")
int at_fentry(void *ctx)
{
	return 0;
}

SEC("tp_btf/sched_switch")
int at_tp_btf(void *ctx)
{
	return 0;
}
