package protocols_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/org/watt"
)

// payments is a gRPC service. It is written as over TCP.
type payments struct {
	pb.UnimplementedTestServiceServer

	entered chan context.Context // if set, UnaryCall sends its context, and then waits for leave
	leave   chan struct{}
}

// payload is the message that carries text.
func payload(text string) *pb.Payload { return &pb.Payload{Body: []byte(text)} }

// UnaryCall answers with the caller's name in front of what it gets.
func (p *payments) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if p.entered != nil {
		p.entered <- ctx
		select {
		case <-p.leave:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return &pb.SimpleResponse{Payload: in.GetPayload(), Username: watt.Caller(ctx)}, nil
}

// StreamingOutputCall sends an answer for each of the sizes, when leave lets it.
func (p *payments) StreamingOutputCall(
	in *pb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[pb.StreamingOutputCallResponse],
) error {
	for _, wish := range in.GetResponseParameters() {
		select {
		case <-p.leave:
		case <-out.Context().Done():
			return out.Context().Err()
		}
		if err := out.Send(&pb.StreamingOutputCallResponse{Payload: payload(strconv.Itoa(int(wish.GetSize())))}); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall sends everything back, for as long as the client likes or until the drain begins.
func (p *payments) FullDuplexCall(
	stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse],
) error {
	watt.LongLived(stream.Context())
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

// paymentsApp is the app: the server is its handler.
func paymentsApp(p *payments) watt.App {
	server := grpc.NewServer()
	pb.RegisterTestServiceServer(server, p)
	return watt.App{Name: "payments", Handler: server}
}

// dialPayments is the client's side of the wiring.
func dialPayments(env *watt.Env) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:payments",
		grpc.WithContextDialer(env.Dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// client returns a client that belongs to the test.
func client(t *testing.T, rt *watt.Runtime) pb.TestServiceClient {
	t.Helper()
	conn, err := dialPayments(rt.Env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewTestServiceClient(conn)
}

// TestGRPCBetweenApps calls from an app, which payments learns the name of.
func TestGRPCBetweenApps(t *testing.T) {
	newShop := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		conn, err := dialPayments(env)
		if err != nil {
			return nil, err
		}
		env.Cleanup(conn.Close)
		payments := pb.NewTestServiceClient(conn)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reply, err := payments.UnaryCall(r.Context(), &pb.SimpleRequest{Payload: payload("12.50")})
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			fmt.Fprintf(w, "%s, said %s", reply.GetPayload().GetBody(), reply.GetUsername())
		}), nil
	}
	_, top := start(t,
		watt.App{Name: "shop", New: newShop, Calls: []string{"payments"}},
		paymentsApp(&payments{}),
	)
	if code, body := top.Get("http://shop.watt.local/"); code != http.StatusOK || body != "12.50, said shop" {
		t.Errorf("got %d %q, want 200 and 12.50, said shop", code, body)
	}
}

func TestGRPCLargeMessage(t *testing.T) {
	rt, _ := start(t, paymentsApp(&payments{}))
	want := bytes.Repeat([]byte("watt"), 1<<18)
	got, err := client(t, rt).UnaryCall(deadline(t), &pb.SimpleRequest{Payload: &pb.Payload{Body: want}})
	if err != nil || !bytes.Equal(got.GetPayload().GetBody(), want) {
		t.Errorf("got %d bytes and %v, want %d bytes", len(got.GetPayload().GetBody()), err, len(want))
	}
}

// TestGRPCServerStream reads each message before the next is sent.
func TestGRPCServerStream(t *testing.T) {
	p := &payments{leave: make(chan struct{})}
	rt, _ := start(t, paymentsApp(p))
	in := &pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: 1}, {Size: 2}, {Size: 3}}}
	stream, err := client(t, rt).StreamingOutputCall(deadline(t), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2", "3"} {
		p.leave <- struct{}{}
		got, err := stream.Recv()
		if err != nil || string(got.GetPayload().GetBody()) != want {
			t.Fatalf("got %v, %v, want %s", got, err, want)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end", err)
	}
}

// TestGRPCBidi talks in turns on more streams than there are workers: they are long-lived.
func TestGRPCBidi(t *testing.T) {
	app := paymentsApp(&payments{})
	app.Workers, app.Queue = 1, 1
	rt, _ := start(t, app)
	c := client(t, rt)
	for range 3 {
		stream, err := c.FullDuplexCall(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			pingPong(t, stream, strconv.Itoa(i))
		}
		defer func() {
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want the end", err)
			}
		}()
	}
}

type duplex = grpc.BidiStreamingClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]

func pingPong(t *testing.T, stream duplex, text string) {
	t.Helper()
	if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: payload(text)}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil || string(got.GetPayload().GetBody()) != text {
		t.Fatalf("got %v, %v, want %s", got, err, text)
	}
}

// TestGRPCDeadline: the server's context has the client's deadline, and ends by it.
func TestGRPCDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &payments{entered: make(chan context.Context, 1)}
		rt, _ := start(t, paymentsApp(p))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client(t, rt).UnaryCall(ctx, &pb.SimpleRequest{})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		served := receive(t, p.entered)
		if _, ok := served.Deadline(); !ok {
			t.Error("the server knows no deadline")
		}
		receive(t, served.Done())
	})
}

// TestGRPCCancel: the server's context ends with the client's.
func TestGRPCCancel(t *testing.T) {
	p := &payments{entered: make(chan context.Context, 1)}
	rt, _ := start(t, paymentsApp(p))
	c := client(t, rt)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.UnaryCall(ctx, &pb.SimpleRequest{})
		failed <- err
	}()
	served := receive(t, p.entered)
	cancel()
	receive(t, served.Done())
	if err := receive(t, failed); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
}

// TestGRPCOverload blocks the only worker.
func TestGRPCOverload(t *testing.T) {
	p := &payments{entered: make(chan context.Context, 1), leave: make(chan struct{})}
	app := paymentsApp(p)
	app.Workers, app.Queue = 1, -1
	rt, _ := start(t, app)
	c := client(t, rt)
	first := make(chan error, 1)
	go func() {
		_, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{})
		first <- err
	}()
	receive(t, p.entered)

	if _, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	close(p.leave)
	if err := receive(t, first); err != nil {
		t.Errorf("the first call: %v", err)
	}
}

// TestGRPCDrain: a unary call in progress finishes, a long-lived stream ends.
func TestGRPCDrain(t *testing.T) {
	p := &payments{entered: make(chan context.Context, 1), leave: make(chan struct{})}
	rt, _ := start(t, paymentsApp(p))
	c := client(t, rt)
	stream, err := c.FullDuplexCall(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	pingPong(t, stream, "hello")
	unary := make(chan error, 1)
	go func() {
		_, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{})
		unary <- err
	}()
	receive(t, p.entered)

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		shutdown(t, rt)
	}()
	if _, err := stream.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream: got %v, want an error", err)
	}
	close(p.leave)
	if err := receive(t, unary); err != nil {
		t.Errorf("the unary call: %v", err)
	}
	receive(t, stopped)
}

// TestGRPCFromOutside calls over TCP, where nothing of watt is on the client's side.
func TestGRPCFromOutside(t *testing.T) {
	app := paymentsApp(&payments{})
	app.Listen = "127.0.0.1:0"
	app.Protocols = new(http.Protocols)
	app.Protocols.SetHTTP1(true)
	app.Protocols.SetUnencryptedHTTP2(true)
	rt, _ := start(t, app)

	conn, err := grpc.NewClient(rt.Status()[0].Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := pb.NewTestServiceClient(conn)
	reply, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{Payload: payload("hello")})
	if err != nil || string(reply.GetPayload().GetBody()) != "hello" || reply.GetUsername() != "" {
		t.Errorf("got %v, %v, want hello to nobody", reply, err)
	}
	stream, err := c.FullDuplexCall(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	pingPong(t, stream, "hello")
}
