//go:build !unix

package page

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

var errSystem = fmt.Errorf("memory shared with child processes on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func create([]byte, int64) (*os.File, error) { return nil, errSystem }

func checkSeals(*os.File) error { return errSystem }

func mapFile(*os.File, int) ([]byte, error) { return nil, errSystem }

func unmap([]byte) error { return errSystem }
