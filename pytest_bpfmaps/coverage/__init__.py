"""Which lines of BPF programs ran: the engines that count, what they counted, and the reports."""
