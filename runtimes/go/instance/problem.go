package main

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
)

// problem is what FAIL and LOAD_FAILED carry.
type problem struct {
	Reason  string `json:"reason"`
	Type    string `json:"type,omitempty"`
	Message string `json:"message"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Stack   string `json:"stack,omitempty"`
}

// JSON may take six bytes for one: both together fit into a frame.
const (
	messageBytesMax = 2048
	stackBytesMax   = 8192
	framesMax       = 64
)

// directory is the version's, with a slash at the end.
var directory string

// problemOfPanic is called by the function that recovered, while the stack of the panic is still there.
func problemOfPanic(value interface{}) *problem {
	p := &problem{Reason: "threw", Type: typeOf(value), Message: cut(messageOf(value), messageBytesMax)}
	if value == http.ErrAbortHandler {
		p.Message = "the handler aborted the answer (http.ErrAbortHandler)"
	}
	counters := make([]uintptr, framesMax)
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters)])
	var stack strings.Builder
	for {
		frame, more := frames.Next()
		// From here on down it is the runtime that called the handler.
		if strings.HasPrefix(frame.Function, "main.(*call).") || frame.Function == "" {
			break
		}
		if !strings.HasPrefix(frame.Function, "runtime.") && !strings.HasPrefix(frame.Function, "main.") {
			file := strings.TrimPrefix(frame.File, directory)
			if p.File == "" && file != frame.File {
				p.File, p.Line = file, frame.Line
			}
			stack.WriteString(frame.Function + "\n\t" + file + ":" + strconv.Itoa(frame.Line) + "\n")
		}
		if !more {
			break
		}
	}
	p.Stack = cut(stack.String(), stackBytesMax)
	return p
}

// text is the problem as the log shows it.
func (p *problem) text() string {
	text := p.Message
	if p.Type != "" {
		text = "panic: " + p.Type + ": " + text
	}
	if p.Stack != "" {
		text += "\n" + strings.TrimSuffix(p.Stack, "\n")
	}
	return text
}

func typeOf(value interface{}) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", value), "*")
}

// messageOf asks the value itself, which may panic in turn.
func messageOf(value interface{}) (text string) {
	defer func() {
		if recover() != nil {
			text = "(its message cannot be shown)"
		}
	}()
	switch value := value.(type) {
	case error:
		return value.Error()
	case fmt.Stringer:
		return value.String()
	}
	return fmt.Sprint(value)
}

func cut(text string, bytesMax int) string {
	if len(text) <= bytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:bytesMax], "")
}
