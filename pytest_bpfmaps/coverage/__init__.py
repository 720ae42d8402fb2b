"""Which lines of BPF programs ran: what was counted, the engines that count, and the reports."""
