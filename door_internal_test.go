package watt

import (
	"testing"
	"unsafe"
)

func TestARequestWithItsExchangeTakesAKibibyte(t *testing.T) {
	if got := max(unsafe.Sizeof(exchanged{}), unsafe.Sizeof(carried{})); got > 1016 {
		t.Errorf("got %d bytes, for which 1152 are allocated", got)
	}
}
