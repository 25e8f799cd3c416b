package pyramid_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

func TestMain(m *testing.M) { watttest.Main(m, mortals) }

// mortals are two processes behind the ready gateway that answer once they have read, or die.
func mortals() *watt.Runtime {
	return watt.New(pyramid.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0"},
		watt.App{
			Name: "mortals", Isolation: watt.OwnProcess, Instances: 2, Workers: 64, QueueTimeout: 20 * time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/die" {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			}),
		},
	)...)
}

// A request whose body comes from a stranger cannot be sent twice, but it need not have been sent at all: where the
// process has gone that it was meant for, another can have it.
func TestUploadsThatNobodyHasBegunGoElsewhereWhenAProcessDies(t *testing.T) {
	const deaths, clients = 4, 24
	top := watttest.Start(t, mortals())
	url := top.URL("gateway") + "/mortals"
	c := client(t, nil)
	var over atomic.Bool
	var uploads sync.WaitGroup
	defer uploads.Wait()
	defer over.Store(true)
	for range clients {
		uploads.Go(func() {
			for !over.Load() {
				body := io.MultiReader(strings.NewReader("hello")) // of unknown length
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", body)
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				switch answer := fmt.Sprint(resp.StatusCode, string(got), err); {
				case answer == "200hello<nil>", resp.StatusCode == http.StatusBadGateway: // it was there when the process died
				default:
					t.Errorf("got %s", answer)
				}
			}
		})
	}
	for range deaths {
		if status, _ := top.Get(url + "/die"); status != http.StatusBadGateway {
			t.Errorf("the death of a process is answered with %d", status)
		}
	}
}
