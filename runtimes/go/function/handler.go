// Package function answers with a greeting.
package function

import (
	"fmt"
	"net/http"
)

// Handle answers one call. It may run many times at once.
func Handle(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" {
		name = "world"
	}
	fmt.Fprintf(w, "Hello, %s!\n", name)
}
