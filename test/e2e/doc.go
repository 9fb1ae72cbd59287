// Package e2e holds the tests of what the whole fleet promises while nothing fails: real
// backends behind a real Nginx over a real Redis, started by internal/fleet on loopback
// addresses. What it promises when something fails is tested in test/faults.
//
// Its decision: a test is here only if it needs more than one program. What one backend does
// alone is tested over a connection in memory, in internal/httpapi.
//
// Where to look:
//
//	routing_test.go     which backend answers: round robin, hashing, a dead backend
//	limits_test.go      how much one address may ask for
//	nginx_test.go       Nginx's own answers, headers and log
//	smuggling_test.go   requests that two readers might split in different places
//	manage_test.go      changes and visits that are counted, over all backends
//	staleness_test.go   how long a change may take to show
//	edge_test.go        the edge cache, which is off by default
//	bulk_test.go        bulk, import and export through Nginx
//	preview_test.go     previews, QR codes and the contract through Nginx
//	keys_test.go        named keys and their rates, over all backends
//	stop_test.go        what a stop finishes, and programs that come back
//	constant_test.go    loadtest/limit answers as a backend does
//	e2e_test.go         what these files share
package e2e
