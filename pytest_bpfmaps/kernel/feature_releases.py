"""The release of the kernel that brought each feature: for people to read, and for ``--bpf-strict``.

Whether a kernel has a feature is always probed, because vendors backport features, and configurations leave
them out. For helpers and kfuncs only those after Linux 5.10 are listed: older kernels are not supported.
"""

from __future__ import annotations

import re

_MAP_TYPES = """
    3.19 hash array
    4.2 prog_array
    4.3 perf_event_array
    4.6 percpu_hash percpu_array stack_trace
    4.8 cgroup_array
    4.10 lru_hash lru_percpu_hash
    4.11 lpm_trie
    4.12 array_of_maps hash_of_maps
    4.14 devmap sockmap
    4.15 cpumap
    4.18 xskmap sockhash
    4.19 cgroup_storage reuseport_sockarray
    4.20 percpu_cgroup_storage queue stack
    5.2 sk_storage
    5.4 devmap_hash
    5.6 struct_ops
    5.8 ringbuf
    5.10 inode_storage
    5.11 task_storage
    5.16 bloom_filter
    6.1 user_ringbuf
    6.2 cgrp_storage
    6.9 arena
    6.19 insn_array
"""
_PROGRAM_TYPES = """
    3.19 socket_filter
    4.1 kprobe sched_cls sched_act
    4.7 tracepoint
    4.8 xdp
    4.9 perf_event
    4.10 cgroup_skb cgroup_sock lwt_in lwt_out lwt_xmit
    4.13 sock_ops
    4.14 sk_skb
    4.15 cgroup_device
    4.17 sk_msg raw_tracepoint cgroup_sock_addr
    4.18 lwt_seg6local lirc_mode2
    4.19 sk_reuseport
    4.20 flow_dissector
    5.2 cgroup_sysctl raw_tracepoint_writable
    5.3 cgroup_sockopt
    5.5 tracing
    5.6 struct_ops ext
    5.7 lsm
    5.9 sk_lookup
    5.14 syscall
    6.4 netfilter
"""
_FUNCTIONS = """
    5.11 bpf_bprm_opts_set bpf_ktime_get_coarse_ns bpf_ima_inode_hash bpf_sock_from_file
    5.11 bpf_task_storage_get bpf_task_storage_delete bpf_get_current_task_btf
    5.12 bpf_check_mtu
    5.13 bpf_for_each_map_elem bpf_snprintf
    5.14 bpf_sys_bpf bpf_btf_find_by_name_kind bpf_sys_close
    5.15 bpf_timer_init bpf_timer_set_callback bpf_timer_start bpf_timer_cancel
    5.15 bpf_get_func_ip bpf_get_attach_cookie bpf_task_pt_regs
    5.16 bpf_get_branch_snapshot bpf_trace_vprintk bpf_skc_to_unix_sock bpf_kallsyms_lookup_name
    5.17 bpf_find_vma bpf_loop bpf_strncmp bpf_get_func_arg bpf_get_func_ret bpf_get_func_arg_cnt
    5.18 bpf_get_retval bpf_set_retval bpf_xdp_get_buff_len bpf_xdp_load_bytes bpf_xdp_store_bytes
    5.18 bpf_copy_from_user_task bpf_skb_set_tstamp bpf_ima_file_hash
    5.19 bpf_kptr_xchg bpf_map_lookup_percpu_elem bpf_skc_to_mptcp_sock bpf_dynptr_from_mem
    5.19 bpf_ringbuf_reserve_dynptr bpf_ringbuf_submit_dynptr bpf_ringbuf_discard_dynptr
    5.19 bpf_dynptr_read bpf_dynptr_write bpf_dynptr_data
    6.0 bpf_tcp_raw_gen_syncookie_ipv4 bpf_tcp_raw_gen_syncookie_ipv6
    6.0 bpf_tcp_raw_check_syncookie_ipv4 bpf_tcp_raw_check_syncookie_ipv6
    6.1 bpf_ktime_get_tai_ns bpf_user_ringbuf_drain
    6.2 bpf_cgrp_storage_get bpf_cgrp_storage_delete
    6.2 bpf_obj_new_impl bpf_obj_drop_impl bpf_task_acquire bpf_task_release
    6.2 bpf_rcu_read_lock bpf_rcu_read_unlock bpf_cast_to_kern_ctx bpf_rdonly_cast
    6.3 bpf_cpumask_create bpf_cpumask_release
    6.4 bpf_iter_num_new bpf_iter_num_next bpf_iter_num_destroy bpf_dynptr_from_skb bpf_dynptr_from_xdp
    6.7 bpf_iter_task_new bpf_iter_css_new bpf_throw
    6.9 bpf_arena_alloc_pages bpf_arena_free_pages
    6.10 bpf_preempt_disable bpf_preempt_enable bpf_wq_init bpf_wq_start
    6.12 bpf_get_task_exe_file bpf_put_file bpf_path_d_path
    6.17 bpf_stream_vprintk
"""
_ATTACH = """
    5.5 fentry fexit fmod_ret tp_btf
    5.7 lsm
    5.8 iter
    5.18 kprobe.multi
    6.0 lsm_cgroup
    6.6 uprobe.multi tcx
    6.7 netkit
    6.10 kprobe.session
    6.13 uprobe.session
"""


def since(feature: str) -> str | None:
    """Returns the first release with a feature, ``6.1``; None if it is not in the tables.

    `feature` is a name as probes give it: ``map type ringbuf``, ``helper bpf_loop``, ``program type lsm`` …
    """
    kind, _, name = feature.rpartition(" ")
    if kind == "attach point":
        name = name.partition("/")[0].removesuffix(".s")
        return _TABLES[kind].get(name) or _TABLES["program type"].get(_PROGRAM_OF.get(name, name))
    return _TABLES[kind].get(name) if kind in _TABLES else None


def came_with(text: str, feature: str) -> str:
    """Returns `text`, which says that a feature is absent, with the first release that has it, if known."""
    first = since(feature)
    return f"{text} (it came with {first})" if first else text


def should_have(feature: str, version: tuple[int, ...]) -> bool:
    """Returns whether a kernel of that version, (6, 1, 0), has the feature according to the tables."""
    first = since(feature)
    return first is not None and version[:2] >= tuple(map(int, first.split(".")))


def _read(table: str) -> dict[str, str]:
    found = {}
    for line in table.split("\n"):
        first, *names = re.split(r"\s+", line.strip())
        found.update(dict.fromkeys(names, first))
    return found


_PROGRAM_OF = {"tp": "tracepoint", "raw_tp": "raw_tracepoint", "kretprobe": "kprobe", "tc": "sched_cls"}
_TABLES = {
    "map type": _read(_MAP_TYPES),
    "program type": _read(_PROGRAM_TYPES),
    "helper": _read(_FUNCTIONS),
    "kfunc": _read(_FUNCTIONS),
    "attach point": _read(_ATTACH),
    "cgroup": {"v2": "4.5"},
    "command": {"token_create": "6.9"},
}
