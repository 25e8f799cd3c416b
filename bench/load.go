package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// clients is how many connections a load over TCP has.
const clients = 64

// loadOf starts servers in processes of their own, the first of which is told where the others are, and has clients
// ask it for path.
func loadOf(path string, first role, others ...role) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		servers, err := startServers(ctx, first, others...)
		if err != nil {
			return session{}, err
		}
		want := document(600)
		if path == "/home" {
			want = page()
		}
		ops, times, conns := make([]op, clients), make([]*timing, clients), make([]*client, clients)
		for i := range ops {
			if conns[i], err = dialClient(ctx, servers[0].address, path, want); err != nil {
				endServers(servers)
				return session{}, err
			}
			times[i] = new(timing)
			ops[i] = times[i].of(conns[i].get)
		}
		return session{
			measure: func(ctx context.Context, d time.Duration) (sample, error) {
				return measureLoad(ctx, ops, times, servers, d)
			},
			close: func() {
				for _, c := range conns {
					_ = c.conn.Close()
				}
				endServers(servers)
			},
		}, nil
	}
}

// client is a connection that asks for one thing again and again. It costs next to nothing, lest the load be what is
// measured.
type client struct {
	conn    net.Conn
	read    *bufio.Reader
	request []byte
	want    []byte
	body    []byte
}

func dialClient(ctx context.Context, address, path string, want []byte) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // see listenTCP
	c := &client{conn: conn, read: bufio.NewReader(conn)}
	c.ask(path, want)
	return c, nil
}

// ask has c ask for path from now on.
func (c *client) ask(path string, want []byte) {
	c.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, c.conn.RemoteAddr())
	c.want, c.body = want, make([]byte, len(want))
}

func (c *client) get(context.Context) error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	resp, err := c.head()
	if err != nil {
		return err
	}
	if resp.length != len(c.want) {
		text, err := io.ReadAll(io.LimitReader(c.read, int64(resp.length)))
		return errors.Join(err, fmt.Errorf("%w: %d: %s", errWrongAnswer, resp.status, bytes.TrimSpace(text)))
	}
	if _, err = io.ReadFull(c.read, c.body); err == nil && (resp.status != http.StatusOK || !bytes.Equal(c.body, c.want)) {
		err = fmt.Errorf("%w: %d", errWrongAnswer, resp.status)
	}
	return err
}

// head is what a client wants to know of the head of an answer.
type head struct{ status, length, instance int }

func (c *client) head() (h head, err error) {
	line, err := c.read.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	if len(line) < 12 {
		return h, errWrongAnswer
	}
	h.status, _ = strconv.Atoi(string(line[9:12]))
	for {
		if line, err = c.read.ReadSlice('\n'); err != nil || len(line) <= 2 {
			return h, err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			h.length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		if value, ok := bytes.CutPrefix(line, []byte(instanceHeader+": ")); ok {
			h.instance, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
}

// timing is how long a client's requests took.
type timing struct{ took []float64 }

func (t *timing) of(do op) op {
	return func(ctx context.Context) error {
		began := time.Now()
		err := do(ctx)
		t.took = append(t.took, float64(time.Since(began))/float64(time.Millisecond))
		return err
	}
}

func measureLoad(ctx context.Context, ops []op, times []*timing, servers []*server, d time.Duration) (sample, error) {
	for _, t := range times {
		t.took = t.took[:0]
	}
	before, _ := usage(servers)
	s, err := repeatFor(ctx, ops, d)
	after, memory := usage(servers)
	if err != nil {
		return s, err
	}
	var all []float64
	for _, t := range times {
		all = append(all, t.took...)
	}
	slices.Sort(all)
	n := float64(len(all))
	s.also = []float64{
		float64(time.Second) / s.value, all[(len(all)-1)*99/100], float64((after - before).Microseconds()) / n, memory,
	}
	return s, nil
}
