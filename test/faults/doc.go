// Package faults holds the experiments that prove what the fleet promises while
// something in it fails: tests over a real fleet that stays under load while they
// kill, freeze and restart its programs.
//
// Its decision: nothing is believed. Each link whose create was answered 201 goes
// into a ledger, synced to disk before it counts; after the fault every one of them
// is read from every backend directly. A promise is an assertion of the test, and
// the table only shows what was measured on the way.
//
// `go test` runs each experiment for a few seconds; -long, as in `make faults`, for
// a minute and with repeats, asserts the promises about time too, and writes
// loadtest/results/faults.md.
package faults
