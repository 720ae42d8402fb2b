// SPDX-License-Identifier: MIT
// Lists the tasks of the machine, as ps does. The kernel runs this iterator once for each task when user
// space reads the link. User space reads the text that the iterator prints.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

SEC("iter/task")
int list_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task) // all tasks were listed
		return 0;
	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(ctx->meta->seq, "PROCESS THREAD NAME\n");
	BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d %s\n", task->tgid, task->pid, task->comm);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
