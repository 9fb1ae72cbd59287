# `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PATH := $(PATH):/usr/sbin:/usr/local/sbin

.PHONY: help run test check fuzz fleet links bench growth bulk faults privacy model docs vendor screenshots pgo tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## serve on :8000 with a Redis of its own; prints a link that signs in, and a curl
	@go build -o bin/server ./server && exec bin/server

test: tools ## run every test, over real Redis and Nginx
	@# Budgets of memory first: the race detector would distort them.
	go test -run Budget ./snowflake ./internal/...
	@# What takes longest begins first: the experiments, which mostly wait, and the page in its browser.
	go test -race -shuffle=on -timeout 20m ./test/faults ./test/browser ./test/e2e ./...

check: tools ## gofmt, vet, staticcheck, nginx -t; types and lint of the page
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt -w these: $$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	nginx/check
	test/node tsc --project .
	test/node eslint --max-warnings 0 .

# Coverage varies a little from run to run; without a limit, Go spends a minute on
# making each find smaller and hardly looks for more.
FUZZTIME := 5m
fuzz: tools ## feed every parser with strangers' bytes, FUZZTIME (5m) each; what fails is kept in testdata/
	@set -eo pipefail; grep -roE --include='*_test.go' '^func Fuzz\w+' . | sort | while IFS=: read -r file func; do \
	  echo "$${func#func }, $${file%/*}, $(FUZZTIME)"; \
	  go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $${file%/*} </dev/null; \
	done

fleet: tools ## keep three backends behind Nginx up on this machine, without Docker
	go run ./loadtest fleet

links: tools ## create 100,000 links through Nginx over 1,000 connections and prove every one
	go run ./loadtest links

bench: tools ## measure every bar against what limits it, some 15 minutes; writes loadtest/results/
	go run ./loadtest bench

growth: tools ## measure by links and by connections, some 6 minutes; writes loadtest/results/
	go run ./loadtest growth

faults: tools ## kill, freeze and restart what there is, under load, about an hour; writes loadtest/results/
	cd test/faults && go test -count=1 -v -timeout 2h -long

privacy: tools ## send a million visits and look for their addresses everywhere, three times, some minutes
	cd test/e2e && go test -count=1 -v -timeout 1h -run TestNoAddressIsKept -long

model: ## go through all that may happen to the protocol of the archive, some minutes
	cd internal/archived/model && go test -count=1 -v -timeout 2h -run TestProtocol -long

bulk: tools ## measure bulk against single creates, and an export and an import of a million links
	go run ./loadtest bulk

docs: ## write the parts of README.md and docs/ that are made from the code and from loadtest/results/
	go test -count=1 -run Docs ./server ./docs -write

vendor: ## fetch the libraries of the page from npm, by the versions in vendor.json
	node internal/dashboard/vendor.mjs

screenshots: tools ## write docs/screenshots/, pictures of every section of the page
	go test -count=1 -run TestScreenshots ./test/browser -screenshots $(CURDIR)/docs/screenshots

pgo: tools ## profile a backend under load and write server/default.pgo, which builds then use
	go run ./loadtest pgo

tools:
	@test/tools
