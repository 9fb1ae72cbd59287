package postgres

import "github.com/cespare/xxhash/v2"

// home is the shard, from 0, of n that a code belongs to: jump consistent hashing (Lamping and Veach,
// 2014, arxiv.org/abs/1406.2294) of XXH64. From n to n+1 shards 1/(n+1) of the codes move, all of them
// to the new one. It decides where rows are: it must never change.
func home(code string, n int) int {
	key := xxhash.Sum64String(code)
	shard, next := 0, 0
	for next < n {
		shard = next
		key = key*2862933555777941757 + 1
		// The next number of shards at which the code moves, by the code's own random numbers.
		next = int(float64(shard+1) * (float64(1<<31) / float64(key>>33+1)))
	}
	return shard
}
