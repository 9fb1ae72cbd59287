package httpapi

import (
	"errors"
	"testing"
	"testing/synctest"
)

// This test is inside the package: from outside, only chance would fill the room.
func TestDrawingRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room, leave := newDrawingRoom(), make(chan struct{})
		for range cap(room) {
			go room.draw(func() error { <-leave; return nil })
		}
		synctest.Wait()
		draw := func() error { return room.draw(func() error { return nil }) }
		if err := draw(); !errors.Is(err, errBusy) {
			t.Errorf("with a full room: %v", err)
		}
		late := make(chan error)
		go func() { late <- draw() }()
		synctest.Wait()
		close(leave)
		if err := <-late; err != nil {
			t.Errorf("when there is room in time: %v", err)
		}
	})
}
