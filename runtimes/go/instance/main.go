// The go runtime's main program: one instance of one version. It is compiled together with the function that it
// serves, so each version has a binary of its own (../build.mjs), and speaks the link (docs/reference/link.md) with
// the standard library only. It compiles in whatever language version the function's go.mod names: no generics here.
//
// This file: from the start of the process to LOADED. The frames are in link.go, a call in call.go, what a handler
// sees in request.go and response.go, what a handler may be in contract.go.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
)

// loadMessage is what of LOAD this runtime needs; the entry and the handler are compiled in.
type loadMessage struct {
	Directory            string            `json:"directory"`
	Env                  map[string]string `json:"env"`
	UID                  *int              `json:"uid"`
	GID                  *int              `json:"gid"`
	MemoryBytes          int64             `json:"memoryBytes"`
	BufferedBodyBytesMax int64             `json:"bufferedBodyBytesMax"`
}

// Of the memory that the instance may take, what the collector lets the program use before it works harder. The rest is
// for what the collector does not count: the binary, stacks of threads, processes that the handler starts.
const collectedShare = 0.8

const markVariable = "FNWAY_GATEWAY"

func main() {
	conn, err := net.Dial("unix", os.Getenv("FNWAY_LINK"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "fnway: cannot connect to the gateway:", err)
		os.Exit(1)
	}
	l := newLink(conn)
	hello, _ := json.Marshal(map[string]interface{}{
		"protocol": 1,
		"secret":   os.Getenv("FNWAY_LINK_SECRET"),
		"pid":      os.Getpid(),
		"runtime":  "go",
	})
	l.post(frameHello, 0, 0, 0, "", hello)
	l.read()
}

// load turns the process into an instance. Nothing is left to do that could take long.
func (l *link) load(payload []byte) {
	var message loadMessage
	if err := json.Unmarshal(payload, &message); err != nil {
		broken("a LOAD that cannot be read: " + err.Error())
	}
	if failed := l.become(message); failed != nil {
		text, _ := json.Marshal(failed)
		l.post(frameLoadFailed, 0, 0, 0, "", text)
		return
	}
	body := `{"body":"stream"}`
	if l.contract.whole {
		body = `{"body":"whole"}`
	}
	l.post(frameLoaded, 0, 0, 0, body, nil)
}

func (l *link) become(message loadMessage) *problem {
	if err := takeIdentity(message); err != nil {
		return &problem{Reason: "identity", Message: "the function's user cannot be taken: " + err.Error()}
	}
	mark := os.Getenv(markVariable)
	os.Clearenv()
	for name, value := range message.Env {
		os.Setenv(name, value)
	}
	os.Setenv(markVariable, mark)
	if err := os.Chdir(message.Directory); err != nil {
		return &problem{Reason: "entry-missing", Message: err.Error()}
	}
	if message.MemoryBytes > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(float64(message.MemoryBytes) * collectedShare))
	}
	directory = strings.TrimSuffix(message.Directory, "/") + "/"
	l.bodyBytesMax = message.BufferedBodyBytesMax
	contract, err := contractOf(exported)
	if err != nil {
		return &problem{Reason: "handler-missing", Message: err.Error(), File: exportedFile, Line: exportedLine}
	}
	l.contract = contract
	return nil
}

// takeIdentity is for a process that was not started as the function's user.
func takeIdentity(message loadMessage) error {
	if message.UID == nil || message.GID == nil {
		return nil
	}
	for _, id := range [2]int{*message.UID, *message.GID} {
		// The kernel would take the lower half of the number.
		if id < 0 || int64(id) > 1<<32-2 {
			return fmt.Errorf("%d is no user or group", id)
		}
	}
	if err := syscall.Setgroups([]int{}); err != nil {
		return err
	}
	if err := syscall.Setgid(*message.GID); err != nil {
		return err
	}
	return syscall.Setuid(*message.UID)
}
