package redisconn

import (
	"context"
	"sync/atomic"
	"time"
)

// shareEvery is the time between two looks at how much memory Redis may take.
const shareEvery = time.Minute

// A Share is a part of the memory that Redis may take: the bound of something in it. All methods may
// be called concurrently.
type Share struct {
	conn            *Conn
	part, unbounded int64
	bytes, looked   atomic.Int64 // looked is in Unix seconds
}

// Share returns the share of one in so many parts. It has so many bytes if Redis has no bound itself.
func (c *Conn) Share(part, unbounded int64) *Share {
	return &Share{conn: c, part: part, unbounded: unbounded}
}

// Bytes returns how much the share is, or 0 until Redis has told. It asks Redis once a minute at most.
func (s *Share) Bytes(ctx context.Context) int64 {
	now, looked := time.Now().Unix(), s.looked.Load()
	if now-looked < int64(shareEvery/time.Second) || !s.looked.CompareAndSwap(looked, now) {
		return s.bytes.Load()
	}
	info, err := s.conn.Info(ctx)
	switch {
	case err != nil:
		s.looked.Store(looked)
	case info.Max == 0:
		s.bytes.Store(s.unbounded)
	default:
		s.bytes.Store(int64(info.Max) / s.part)
	}
	return s.bytes.Load()
}
