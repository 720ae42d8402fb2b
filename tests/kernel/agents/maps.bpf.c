// Programs that are attached to maps: to a sockmap, and as the functions of a registered struct.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sock;
struct tcp_congestion_ops { // the members that are set here
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

#ifdef WITH_STRUCT
SEC("struct_ops")
__u32 after_a_loss(__u64 *context)
{
	return 2;
}

SEC("struct_ops")
__u32 after_a_false_alarm(__u64 *context)
{
	return 10;
}

SEC("struct_ops")
void grow(__u64 *context)
{
}

SEC(".struct_ops")
struct tcp_congestion_ops agents = {
	.ssthresh = (void *)after_a_loss,
	.cong_avoid = (void *)grow,
	.undo_cwnd = (void *)after_a_false_alarm,
	.name = "bpfmaps_agents",
};
#else
SEC("sk_skb/stream_verdict")
int judge(struct __sk_buff *skb)
{
	return bpf_sk_redirect_map(skb, &sockets, 0, 0);
}

SEC("sk_msg")
int judge_message(struct sk_msg_md *message)
{
	return bpf_msg_redirect_map(message, &sockets, 0, 0);
}
#endif

char LICENSE[] SEC("license") = "GPL";
