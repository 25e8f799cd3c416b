package direct_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// program is what a handler does, two bytes for each step: what, and how much of it.
type program []byte

// What a step does.
const (
	setHeader = iota
	addHeader
	write
	flushes
	writeHeader
	read
	readRest
	inform
	setTrailer
	closeBody
	abort
	steps
)

// list returns the steps; a program ends when it aborts, or gets long.
func (p program) list() [][2]byte {
	var out [][2]byte
	for step := range slices.Chunk(p[:min(len(p), 40)], 2) {
		if len(step) < 2 {
			break
		}
		out = append(out, [2]byte{step[0] % steps, step[1]})
		if step[0]%steps == abort {
			break
		}
	}
	return out
}

func (p program) has(what byte) bool {
	return slices.ContainsFunc(p.list(), func(s [2]byte) bool { return s[0] == what })
}

// run is the handler. It notes what the steps return.
func (p program) run(w http.ResponseWriter, r *http.Request, note func(string, ...any)) {
	http.NewResponseController(w).EnableFullDuplex() // or net/http lets nobody read a request once the answer has begun
	for _, step := range p.list() {
		arg := int(step[1])
		switch step[0] {
		case setHeader, addHeader:
			name, value := field(arg)
			if step[0] == addHeader && name != "Content-Length" && name != "Trailer" {
				w.Header().Add(name, value)
			} else {
				w.Header().Set(name, value)
			}
		case write:
			n, err := w.Write([]byte(text(size(arg))))
			note("write %d %v", n, err)
		case flushes:
			note("flush %v", flush(w))
		case writeHeader:
			w.WriteHeader([]int{200, 201, 204, 205, 304, 404, 500, 999}[arg%8])
		case read:
			n, err := io.ReadFull(r.Body, make([]byte, size(arg)))
			note("read %d %v", n, readError(err))
		case readRest:
			got, err := io.ReadAll(r.Body)
			note("read %s %v", sum(got), readError(err))
		case inform:
			w.WriteHeader([]int{103, 102, 100}[arg%3])
		case setTrailer:
			w.Header().Set([]string{"X-A", "X-B", http.TrailerPrefix + "X-C", http.TrailerPrefix + "X-D"}[arg%4], strconv.Itoa(arg))
		case closeBody:
			r.Body.Close()
		case abort:
			panic(http.ErrAbortHandler)
		}
	}
}

func size(arg int) int { return []int{0, 1, 5, 100, 2047, 2048, 2049, 4095, 5000, 20_000}[arg%10] }

// field returns a header that means something to those who send answers, or nothing.
func field(arg int) (name, value string) {
	names := []string{"X-A", "X-Name", "Content-Type", "Trailer", "Content-Length", "Etag", "Content-Encoding", "Pragma", "Set-Cookie", "x-odd", "Link", "Cache-Control", "Transfer-Encoding", "Content-Range"}
	switch name = names[arg%len(names)]; name {
	case "Trailer":
		return name, []string{"X-A", "X-A, X-B", "x-b", "Content-Length", "", "Range, X A"}[arg/len(names)%6]
	case "Content-Length":
		return name, []string{"0", "5", "100", "2049", "5000"}[arg/len(names)%5]
	case "Transfer-Encoding":
		return name, "chunked"
	case "Pragma":
		return name, "no-cache"
	}
	return name, []string{"a", "", " b ", "c\nd", "text/plain", "ü"}[arg/len(names)%6]
}

func sum(b []byte) string {
	h := fnv.New64()
	h.Write(b)
	return fmt.Sprintf("%d bytes %x", len(b), h.Sum64())
}

// readError is what an error of reading a request's body means.
func readError(err error) string {
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // Read returns it bare
		return fmt.Sprint(err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "short"
	case strings.Contains(err.Error(), "after Close"), strings.Contains(err.Error(), "closed"):
		return "closed"
	}
	return err.Error()
}
