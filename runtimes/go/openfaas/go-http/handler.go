// Package handler has the types of handlers written for OpenFaaS' golang-http template, so that they compile without
// a download. The build puts it in place of the package of that name.
package handler

import (
	"context"
	"net/http"
)

// Request is a call with its body whole.
type Request struct {
	Body        []byte
	Header      http.Header
	QueryString string
	Method      string
	Host        string

	ctx context.Context
}

// Context ends when nobody waits for the answer any more. Never nil.
func (r *Request) Context() context.Context {
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
}

// WithContext changes the request itself.
func (r *Request) WithContext(ctx context.Context) {
	r.ctx = ctx
}

// Response is the answer; a StatusCode of 0 is 200.
type Response struct {
	Body       []byte
	StatusCode int
	Header     http.Header
}

// FunctionHandler is what a type with such a handler is.
type FunctionHandler interface {
	Handle(req Request) (Response, error)
}
