// Programs that every kernel takes, also one that refuses tracing.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct event {
	__u32 mark;
	char text[12];
};

struct counts {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct counts);
} counts_of_each_interface SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, struct event);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} samples SEC(".maps");

__u64 seen;

static void count(__u32 interface, __u32 length)
{
	struct counts *found, fresh = {};

	bpf_map_update_elem(&counts_of_each_interface, &interface, &fresh, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&counts_of_each_interface, &interface);
	if (found) {
		__atomic_fetch_add(&found->packets, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&found->bytes, length, __ATOMIC_RELAXED);
	}
}

SEC("xdp")
int count_frames_of_an_interface(struct xdp_md *ctx)
{
	count(ctx->ingress_ifindex, ctx->data_end - ctx->data);
	__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
	return XDP_PASS;
}

SEC("tc")
int send_event(struct __sk_buff *skb)
{
	struct event event = {skb->mark};

	event.text[0] = '!'; // a literal would make a section .rodata, which Linux 5.10 refuses
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	bpf_map_push_elem(&queue, &event, BPF_EXIST);
	bpf_perf_event_output(skb, &samples, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int let_out(struct __sk_buff *skb)
{
	return 1;
}
