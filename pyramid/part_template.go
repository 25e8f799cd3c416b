package pyramid

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/org/watt"
)

// template is a Path with parameters to be filled in.
type template struct {
	segments [][]piece // of the path, between slashes
	query    []piece   // nil if there is none
}

// piece is literal text, or a parameter.
type piece struct{ text, escaped, param string }

// compile parses a Path.
func compile(s string) (*template, error) {
	path, query, asked := strings.Cut(s, "?")
	below, rooted := strings.CutPrefix(path, "/")
	switch {
	case !rooted:
		return nil, errors.New("it does not begin with a slash")
	case strings.Contains(s, "#"):
		return nil, errors.New("it has a fragment")
	}
	t := &template{}
	for segment := range strings.SplitSeq(below, "/") {
		pieces, err := split(segment, pathText)
		if err != nil {
			return nil, err
		}
		if len(pieces) == 1 && pieces[0].param == "" && reshapes(pieces[0].text) {
			return nil, fmt.Errorf("%q leads elsewhere", segment)
		}
		t.segments = append(t.segments, pieces)
	}
	var err error
	if asked {
		t.query, err = split(query, queryText)
	}
	return t, err
}

// split cuts s into literal text and parameters.
func split(s string, literal func(string) (piece, error)) ([]piece, error) {
	var pieces []piece
	for s != "" {
		text, rest, found := strings.Cut(s, "{")
		if text != "" {
			p, err := literal(text)
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, p)
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" || strings.ContainsAny(name, "{:=&%") {
			return nil, fmt.Errorf("{%s is not a parameter", rest)
		}
		pieces = append(pieces, piece{param: name})
		s = after
	}
	return pieces, nil
}

// pathText is literal text of a path, which is escaped where it is not.
func pathText(s string) (piece, error) {
	text, err := url.PathUnescape(s)
	if err != nil || strings.Contains(s, "}") {
		return piece{}, fmt.Errorf("%q cannot stand in a path", s)
	}
	u := url.URL{Path: text, RawPath: s}
	return piece{text: text, escaped: u.EscapedPath()}, nil
}

// queryText is literal text of a query, which must have been escaped.
func queryText(s string) (piece, error) {
	_, err := url.QueryUnescape(s)
	odd := strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
	if err != nil || odd || strings.Contains(s, "}") {
		return piece{}, fmt.Errorf("%q cannot stand in a query", s)
	}
	return piece{escaped: s}, nil
}

// fill makes u the URL's path and query for the request that v belongs to.
func (t *template) fill(u *url.URL, v *values) error {
	var a, b [96]byte // enough for most
	text, escaped := a[:0], b[:0]
	var err error
	for _, segment := range t.segments {
		text, escaped = append(text, '/'), append(escaped, '/')
		if text, escaped, err = fillSegment(text, escaped, segment, v); err != nil {
			return err
		}
	}
	u.Path = string(text)
	if string(escaped) != u.Path {
		u.RawPath = string(escaped)
	}
	u.RawQuery, err = t.fillQuery(v)
	return err
}

func fillSegment(text, escaped []byte, segment []piece, v *values) (_, _ []byte, err error) {
	start, filled := len(text), false
	for _, p := range segment {
		if p.param != "" {
			filled = true
			if p.text, err = v.find(p.param, http.StatusInternalServerError); err != nil {
				return nil, nil, err
			}
			p.escaped = url.PathEscape(p.text)
		}
		text, escaped = append(text, p.text...), append(escaped, p.escaped...)
	}
	if filled && reshapes(string(text[start:])) {
		return nil, nil, badRequest("the value of a parameter changes the shape of the path")
	}
	return text, escaped, nil
}

// reshapes reports whether a segment that was filled in makes another path of it, now or once the callee
// has decoded it.
func reshapes(segment string) bool {
	return segment == "" || climbs(segment)
}

func (t *template) fillQuery(v *values) (string, error) {
	if len(t.query) == 1 && t.query[0].param == "" {
		return t.query[0].escaped, nil
	}
	var a [96]byte
	query := a[:0]
	for _, p := range t.query {
		if p.param != "" {
			value, err := v.find(p.param, http.StatusBadRequest)
			if err != nil {
				return "", err
			}
			p.escaped = url.QueryEscape(value)
		}
		query = append(query, p.escaped...)
	}
	return string(query), nil
}

// badRequest is the error of a request that cannot be answered because of what it asks.
func badRequest(why string) error {
	return &watt.CallError{Status: http.StatusBadRequest, Err: errors.New(why)}
}
