// SPDX-License-Identifier: MIT

// The exec counter in Go, with github.com/cilium/ebpf.
package main

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
)

//go:embed exec_count.bpf.o
var object []byte

type event struct {
	Pid  uint32
	Comm [16]byte
}

func main() {
	if err := rlimit.RemoveMemlock(); err != nil {
		log.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		log.Fatal(err)
	}
	loaded, err := ebpf.NewCollection(spec)
	if err != nil {
		log.Fatalf("%+v", err) // with the verifier's log
	}
	defer loaded.Close()
	attached, err := link.Tracepoint("sched", "sched_process_exec", loaded.Programs["trace_exec"], nil)
	if err != nil {
		log.Fatal(err)
	}
	defer attached.Close()
	events, err := ringbuf.NewReader(loaded.Maps["events"])
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ended
		events.Close()
	}()
	for {
		record, err := events.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return
		}
		var seen event
		if err == nil {
			err = binary.Read(bytes.NewReader(record.RawSample), binary.LittleEndian, &seen)
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s\n", seen.Pid, bytes.TrimRight(seen.Comm[:], "\x00"))
	}
}
