package redisstore

import (
	"strings"

	"snowlink/server/internal/link"
)

// A record is the value of a link's key: the target on the first line, so that
// redis-cli GET link:abc reads well and a plain link pays for its URL and
// nothing else. What follows a line feed is kept for options.

func linkKey(code string) string { return "link:" + code }

func encodeRecord(l link.Link) string { return l.Target }

func decodeRecord(record string) link.Link {
	target, _, _ := strings.Cut(record, "\n")
	return link.Link{Target: target}
}
