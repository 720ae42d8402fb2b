// Sends numbered records, and counts those for which there was no room.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct event {
	__u64 number;
	__u64 twice;
};

struct event *keeps_the_type;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SIZE);
} events SEC(".maps");

__u64 sent, refused;

SEC("tc")
int send_numbers(struct __sk_buff *skb)
{
	__u64 number = sent;

	__atomic_fetch_add(&sent, 1, __ATOMIC_RELAXED); // Linux 5.10 has no atomic addition with a result
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
		return TC_ACT_OK;
	}
	event->number = number;
	event->twice = 2 * number;
	if (skb->mark && number % skb->mark == 0)
		bpf_ringbuf_discard(event, 0);
	else
		bpf_ringbuf_submit(event, 0);
	return TC_ACT_OK;
}

struct wide {
	__u64 number, twice, more;
};

struct wide *keeps_the_wide_type;

SEC("tc")
int send_wide(struct __sk_buff *skb)
{
	__u64 number = sent;

	__atomic_fetch_add(&sent, 1, __ATOMIC_RELAXED); // Linux 5.10 has no atomic addition with a result
	struct wide wide = {number, 2 * number};

	bpf_ringbuf_output(&events, &wide, sizeof(wide), 0);
	return TC_ACT_OK;
}
