package pyramid

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// headerPartial says which parts are missing or replaced, and why.
const headerPartial = "X-Watt-Partial"

// answerBuffer is what an answer is put together in, in bytes. Longer ones are written in pieces.
const answerBuffer = 8 << 10

// answer writes the parts that came, and what stands in for others.
func (g *gathering) answer(w http.ResponseWriter) {
	size, written := 2, 0 // two braces
	var failed []string   // or not whole
	for i, p := range g.parts {
		if g.got[i].err != nil {
			failed = append(failed, p.member+";reason="+reasonOf(g.got[i].err))
			g.got[i].json = p.fallback
		} else if partial := g.got[i].partial; partial != "" {
			failed = append(failed, p.member+";reason=partial"+inner(partial))
		}
		if json := g.got[i].json; json != nil {
			size += len(p.name) + len(json)
			written++
		}
	}
	size += max(written-1, 0) // commas
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(size))
	if failed != nil {
		h.Set(headerPartial, strings.Join(failed, ", "))
		h.Set("Cache-Control", "no-store")
	}
	g.write(w) // for HEAD, net/http keeps it
}

// write writes the object. A client that takes no more is nobody's fault.
func (g *gathering) write(w http.ResponseWriter) {
	b, ok := g.writers.Get().(*bufio.Writer)
	if !ok {
		b = bufio.NewWriterSize(nil, answerBuffer)
	}
	b.Reset(w)
	defer g.writers.Put(b)
	defer b.Reset(nil) // also if the client has gone, and w panics
	next := byte('{')
	for i, p := range g.parts {
		json := g.got[i].json
		if json == nil {
			continue
		}
		_ = b.WriteByte(next)
		_, _ = b.Write(p.name)
		_, _ = b.Write(json)
		next = ','
	}
	if next == '{' {
		_ = b.WriteByte(next)
	}
	_ = b.WriteByte('}')
	_ = b.Flush()
}

// maxInner is how much of a part's own X-Watt-Partial is repeated, in bytes.
const maxInner = 1 << 10

// inner returns what a part says of itself as a parameter of its member, or "" if that is too long, or not text.
func inner(partial string) string {
	if len(partial) > maxInner || strings.ContainsFunc(partial, unprintable) {
		return ""
	}
	return ";inner=" + strconv.Quote(partial)
}

// unprintable reports whether c cannot stand in a quoted string.
func unprintable(c rune) bool { return c < ' ' || c > '~' }

// member returns a key as a member of a list of structured fields (RFC 9651): bare if it can be,
// quoted, or percent-encoded.
func member(key string) string {
	const token = "!#$%&'*+-.^_`|~:/0123456789"
	switch {
	case key != "" && letter(rune(key[0])) && strings.TrimLeftFunc(key, func(c rune) bool { return letter(c) || strings.ContainsRune(token, c) }) == "":
		return key
	case !strings.ContainsFunc(key, unprintable):
		return strconv.Quote(key)
	}
	var b strings.Builder
	b.WriteString(`%"`)
	for i := range len(key) {
		if c := key[i]; c < ' ' || c > '~' || c == '%' || c == '"' {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func letter(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
