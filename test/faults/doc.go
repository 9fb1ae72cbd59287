// Package faults holds the experiments that prove what the fleet promises while something in it
// fails. They are tests over a real fleet: it stays under load while they kill, freeze and
// restart its programs.
//
// Its decision: nothing is believed. Each link whose create was answered 201 goes into a ledger,
// which is synced to disk before the link counts. After the fault every one of them is read from
// every backend directly. A promise is an assertion of a test; the table only shows what was
// measured on the way.
//
// go test runs each experiment for a few seconds. With -long, as in make faults, each takes a
// minute or more, with repeats; the promises about time are asserted too, and the table is
// written to loadtest/results/faults.md.
//
// Where to look, by the number of the experiment in the table:
//
//	backend_test.go    1 to 3: backends killed, paused and restarted; Nginx reloaded
//	redis_test.go      4 to 8: Redis killed, paused, cut off; disk or memory full; a torn file
//	identity_test.go   9, 2: two processes with one node ID, clocks that go back
//	sentinel_test.go   10: failovers
//	compose_test.go    11, 3: what only the containers of Compose show
//	clients_test.go    12: slow clients
//	forget_test.go     13, 16, 17, 19 to 21: Redis evicts, is away, loses everything, is full,
//	                   before an archive
//	postgres_test.go   14, 15: PostgreSQL or one of its shards away
//	archiving_test.go  18, 22, 23: killed archivers, one shard more, failovers
//	clicks_test.go     24 to 27: what counts clicks killed or away, hostile visitors, repeated batches
//
// What they share: an experiment from start to finish in faults_test.go, the load in
// load_test.go, the ledger in ledger_test.go, the proxy before Redis in proxy_test.go, a look into
// the archive in archive_test.go, and the table in table_test.go.
package faults
