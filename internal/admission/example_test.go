package admission_test

import (
	"context"
	"fmt"

	"github.com/org/watt/internal/admission"
)

// One instance with one worker, and no queue: the second request is shed.
func Example() {
	pool := admission.New[string](admission.Limits{Workers: 1})
	pool.Add().Open("instance 0")

	ticket, err := pool.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ticket.Release()
	fmt.Println("runs on", ticket.Value())

	_, err = pool.Acquire(context.Background())
	fmt.Println(err)
	// Output:
	// runs on instance 0
	// all workers are busy: 1 of 1, and none may wait
}
