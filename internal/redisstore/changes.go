package redisstore

import "context"

// ChangesChannel is where a code is published when its link changes, comes or goes.
const ChangesChannel = "links:changed"

// Changes calls changed with every code that is announced, until ctx ends. It calls missed when
// announcements may have been lost: whenever the subscription begins, and whenever it breaks. The
// calls come one after another.
func (s *Store) Changes(ctx context.Context, changed func(code string), missed func()) {
	s.conn.Hear(ctx, ChangesChannel, s.unheard, changed, missed)
}
