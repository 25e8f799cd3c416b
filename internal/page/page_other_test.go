//go:build !unix

package page_test

import (
	"errors"
	"testing"

	"github.com/org/watt/internal/page"
)

func TestWhereThereAreNoPagesTheErrorSaysSo(t *testing.T) {
	if _, err := page.Create(1, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got error %v, want %v", err, errors.ErrUnsupported)
	}
}
