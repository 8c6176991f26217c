package main

import (
	"context"
	"strings"
	"sync"
	"time"
)

// call is one stream. It is the context of its request, too: most handlers ask neither for Done nor for the deadline,
// and pay for neither.
type call struct {
	link     *link
	stream   uint32
	head     head
	deadline time.Time // zero without one
	body     requestBody

	mutex   sync.Mutex
	changed sync.Cond
	// Nobody waits for the answer any more.
	cancelled bool
	// What Err says; set once.
	err    error
	done   chan struct{}
	timer  *time.Timer
	credit int
}

func newCall(l *link, stream uint32, text string) *call {
	c := &call{link: l, stream: stream, credit: windowBytes}
	c.changed.L = &c.mutex
	c.body.call = c
	if !c.head.parse(text) {
		broken("a CALL with a bad head")
	}
	if c.head.timeout > 0 {
		c.deadline = time.Now().Add(c.head.timeout)
	}
	return c
}

// run is the goroutine of the call. The stream ends exactly once, whatever the handler does.
func (c *call) run() {
	w := &response{call: c}
	returned := false
	defer func() {
		if returned {
			return
		}
		if value := recover(); value != nil {
			w.fail(problemOfPanic(value))
		} else {
			// Not only a panic ends a goroutine.
			w.fail(&problem{Reason: "threw", Message: "the handler ended its goroutine (runtime.Goexit)"})
		}
		c.end()
	}()
	failed := c.answer(w)
	returned = true
	if failed != nil {
		w.fail(failed)
	} else {
		w.finish()
	}
	c.end()
}

func (c *call) answer(w *response) *problem {
	request, err := c.request()
	if err != nil {
		w.WriteHeader(400)
		w.WriteString("The path is malformed: " + err.Error() + "\n")
		return nil
	}
	return c.link.contract.serve(w, request)
}

// end comes behind the stream's last frame.
func (c *call) end() {
	c.abort(context.Canceled)
	l := c.link
	l.mutex.Lock()
	l.endCall()
	l.mutex.Unlock()
}

// cancel is what the gateway's CANCEL does.
func (c *call) cancel(reason string) {
	c.mutex.Lock()
	c.cancelled = true
	c.mutex.Unlock()
	if strings.Contains(reason, "DEADLINE") {
		c.abort(context.DeadlineExceeded)
	} else {
		c.abort(context.Canceled)
	}
}

func (c *call) isCancelled() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.cancelled
}

// abort ends the request's context. Idempotent: the first reason stays.
func (c *call) abort(reason error) {
	c.mutex.Lock()
	c.abortLocked(reason)
	c.mutex.Unlock()
}

func (c *call) abortLocked(reason error) {
	if c.err == nil {
		c.err = reason
		if c.done != nil {
			close(c.done)
		}
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.changed.Broadcast()
}

// Deadline, Done, Err and Value make a call the context of its request.
func (c *call) Deadline() (time.Time, bool) {
	return c.deadline, !c.deadline.IsZero()
}

// The gateway says when the time is up. A handler that heard of it before would answer a caller who is about to be told
// that it did not; one that never hears of it from there hears of it from here.
const lateness = 250 * time.Millisecond

// Done is made when first asked for.
func (c *call) Done() <-chan struct{} {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.err != nil {
		close(c.done)
	} else if !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline)+lateness, func() { c.abort(context.DeadlineExceeded) })
	}
	return c.done
}

func (c *call) Err() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.err
}

func (c *call) Value(key interface{}) interface{} {
	return nil
}

func (c *call) addCredit(bytes int) {
	c.mutex.Lock()
	c.credit += bytes
	c.changed.Broadcast()
	c.mutex.Unlock()
}

// takeCredit waits until at least one byte may be sent, and takes up to `wanted`. 0: nobody wants them any more.
func (c *call) takeCredit(wanted int) int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for c.credit <= 0 && !c.cancelled {
		c.changed.Wait()
	}
	if c.cancelled {
		return 0
	}
	if wanted > c.credit {
		wanted = c.credit
	}
	c.credit -= wanted
	return wanted
}
