// SPDX-License-Identifier: MIT
// Sends TCP packets for one port to another one. The answers look as if they came from the first port. One
// tc program per direction rewrites the ports, and keeps the checksums correct.
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u16 public_port = 80, real_port = 8080;

enum { IP_AT = ETH_HLEN, TCP_AT = ETH_HLEN + sizeof(struct iphdr) };

// Replaces the port `from` by `to` at this offset of the TCP header.
static void rewrite(struct __sk_buff *skb, __u32 offset, __be16 from, __be16 to)
{
	struct iphdr ip;
	__be16 port;

	// These helpers copy, so they also work when a packet is in several pieces.
	if (bpf_skb_load_bytes(skb, IP_AT, &ip, sizeof(ip)) || ip.ihl != 5 || ip.protocol != IPPROTO_TCP)
		return;
	if (bpf_skb_load_bytes(skb, TCP_AT + offset, &port, sizeof(port)) || port != from)
		return;
	// The checksum changes by the difference of the ports, so there is no need to sum the whole packet.
	bpf_l4_csum_replace(skb, TCP_AT + offsetof(struct tcphdr, check), from, to, sizeof(port));
	bpf_skb_store_bytes(skb, TCP_AT + offset, &to, sizeof(to), 0);
}

SEC("tc")
int arriving(struct __sk_buff *skb)
{
	rewrite(skb, offsetof(struct tcphdr, dest), bpf_htons(public_port), bpf_htons(real_port));
	return TC_ACT_UNSPEC; // continue with the next program if there is one
}

SEC("tc")
int leaving(struct __sk_buff *skb)
{
	rewrite(skb, offsetof(struct tcphdr, source), bpf_htons(real_port), bpf_htons(public_port));
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
