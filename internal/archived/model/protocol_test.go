package model

import "fmt"

// A protocol is the one that the package comment states, less what its fields say. Its zero value
// is what is built; each field takes one safeguard away, or puts another mechanism in its place,
// and some invariant then breaks.
type protocol struct {
	// Of the archiver.
	markNumbers       bool // the row refuses lower numbers of marks, instead of records
	unguarded         bool // the upsert refuses nothing
	expireAnything    bool // the time to live is set whatever record is there
	unmarkFirst       bool // the entry is deleted before the upsert
	impatient         bool // a mark without a link is deleted at once
	refusedIsArchived bool // a refused upsert counts as one that was not
	refusedIsDone     bool // a refused upsert ends the work on a mark
	rowWins           bool // what refused an upsert takes the record's place, whether or not that has a time to live

	// While rows move from one shard to another.
	deleteFirst bool // a move deletes the row in its old home before it is in the new one
	newThenOld  bool // the new home is asked first, and then the old one
	firstFound  bool // the row of the first home that has one counts, whatever the other has
	unfenced    bool // a shard takes rows that have their home elsewhere now

	// Of changes and creates.
	noNumbers       bool // a record has no number: equal links have equal records
	markFirst       bool // the mark comes before the change
	keepTTL         bool // a change leaves the time to live as it was
	graceAtOnce     bool // a delete sets the time to live of the tombstone
	changeKeepsPass bool // a change leaves the pass
	createKeepsPass bool // a create leaves the pass
	againFromZero   bool // a code that is taken again begins at number 0, not after its tombstone

	// Of whoever found nothing in Redis.
	noPass         bool // SET NX alone restores
	passUnseen     bool // the pass is taken without a look at the record in the same step
	rowLock        bool // a restore locks the row, against upserts, until Redis has the record
	lockEnds       bool // the lock ends with its connection, while the record is on its way still
	readAgain      bool // a restore reads the row again and takes back what is not in it
	changeChecks   bool // a change of a record with a short time to live reads the row first
	neverSwept     bool // nothing looks for links without a time to live that have no mark
	neverVerified  bool // nothing compares Redis with the archive after Redis lost writes
	restoreForLong bool // a restored record has the long time to live
	noFence        bool // a create of a chosen code does not ask the archive
	reserves       bool // it reserves the code in the archive by INSERT … ON CONFLICT DO NOTHING, without a pass
	takesOver      bool // a reservation can be taken over, its creator being thought dead
	lookUpAlone    bool // it asks without a pass
	joinsLate      bool // a read shares the query of another that was answered already
	archiveFirst   bool // a read asks the archive before Redis
	failureIsNone  bool // an archive that does not answer counts as one that has nothing
}

// A record is what stands under a code, in Redis or in PostgreSQL. The protocol sees the value and
// the number. The order is the model's own: it says which write made the record, and orders all
// writes of a run.
type record struct{ order, value, number uint8 }

const deleted = 'x' // the value of a tombstone; links have capital letters

func (r record) there() bool { return r.order != 0 }

// same reports whether the protocol takes the two for one record.
func (r record) same(other record) bool {
	return r.there() && other.there() && r.value == other.value && r.number == other.number
}

// archived is the row, wherever it is.
func (s *state) archived() record {
	if s.growth == grown {
		return s.row
	}
	return s.old.orLater(s.row)
}

// orLater is the one with the higher number of r and of other, or other if they have the same.
func (r record) orLater(other record) record {
	if !other.there() || r.there() && r.number > other.number {
		return r
	}
	return other
}

// is reports whether the two are the same write, or cannot be told apart by anyone.
func (r record) is(other record) bool { return r.order == other.order || r.same(other) }

func (r record) String() string {
	switch {
	case !r.there():
		return "nothing"
	case r.value == deleted:
		return fmt.Sprintf("tombstone.%d", r.number)
	}
	return fmt.Sprintf("%c.%d", r.value, r.number)
}

// Times to live. Redis may evict whatever has one, and each may run out: to the model that is the
// same.
const (
	none     = iota
	short    // of a restored record
	archived // of a record that the archiver found in PostgreSQL: ten years, or the grace of a tombstone
)

// What a process does next.
const (
	start = iota
	takePass
	askArchive
	askOther // home, while rows move
	put      // restores or creates
	checkRow
	takeBack
	compareAndSet
	addMark
	askRedis
	read
	upsert
	compareRow
	expire
	settle
	unmark
	done
)

// How far it is to a shard more. In between, shards learn one after another that there is one.
const (
	before = iota
	between
	growing // every shard knows that rows are to move
	grown   // no row is at its old home
)

const (
	minting  = iota // creates a link under a minted code
	choosing        // creates a link under a chosen code
	changing        // changes the link, or deletes it
	reading         // follows the link
	archiving
	moving // brings rows to the shard that is their home now
)

// A program is what a process runs.
type program struct {
	kind  int
	value uint8 // what a create or a change writes
}

type process struct {
	at     uint8
	pass   bool   // it holds the pass, which is valid still
	copied bool   // it holds the pass that a replica has
	record record // what it found in Redis, or wrote there
	row    record // what it found in the archive
	mark   uint8  // the mark that an archiver works on
	lock   bool   // it holds a lock on the row
	begun  bool
	since  uint8 // the order of the last write acknowledged when it began
}

const (
	maxProcesses = 6
	maxMarks     = 6
)

// redis is what a failover may turn back.
type redis struct {
	record record
	ttl    uint8
	pass   bool // one is out
	marks  [maxMarks]uint8
	marked uint8 // the number of the last mark
	latest record
}

// A state is that of one code. States are comparable: equal ones are explored once.
type state struct {
	redis
	row     record
	old     record // the row in the shard that was its home before
	growth  uint8
	rowMark uint8 // the mark that wrote it; see markNumbers
	process [maxProcesses]process

	order        uint8 // of the last write
	acknowledged uint8 // the order of the last write acknowledged
	reserved     uint8 // by which process, plus one; see reserves
	graceOver    bool  // the tombstone in the archive is older than the grace
	broken       invariant

	// What went wrong so far.
	crashed, failed, lost, failedOver, loose, copied, repeated bool
	crashes                                                    uint8
	copy                                                       redis  // what a replica has
	samePass                                                   bool   // the pass is the one that the replica has
	other                                                      record // what the archive had that the new master lacks
}

// A world is where a protocol is tried: what is there at first, who runs, what may go wrong.
type world struct {
	redis, row, old record // at first; orders are of one count
	ttl             uint8
	programs        []program

	crashes  uint8 // how many processes may end in the middle
	failure  bool  // the archive may not answer, once
	apart    bool  // a mint and its mark go to two nodes of a Cluster, and either comes first
	grows    bool  // rows have a new home, where those of before are moved
	late     bool  // the SET NX of a mint may be carried out a second time, late
	grace    bool  // the grace of a tombstone may end
	loss     bool  // Redis may lose everything, once
	failover bool  // a replica that is behind may become the master, once
	inFlight bool  // both also while an archiver holds a record that it read before
}

// A step is one thing that happens, with the state after it.
type step struct {
	what string
	to   state
}

// machine is a protocol in a world.
type machine struct {
	protocol
	world
	only  invariant // the one that is asked for; nothing means all
	say   bool      // says what happens, which costs
	steps []step
}

func (m *machine) first() state {
	s := state{row: m.row, old: m.old}
	s.record, s.ttl = m.world.redis, m.ttl
	s.latest = s.archived()
	if s.record.there() {
		s.latest = s.record
		if s.ttl == none {
			s.mark()
		}
	}
	s.order = max(s.record.order, s.archived().order)
	s.acknowledged = s.order
	for i := len(m.programs); i < maxProcesses; i++ {
		s.process[i].at = done
	}
	return s
}

func (m *machine) step(to state, format string, args ...any) {
	what := ""
	if m.say {
		what = fmt.Sprintf(format, args...)
	}
	m.steps = append(m.steps, step{what, to})
}

func (m *machine) name(i int) string {
	same := 0
	for k, p := range m.programs {
		if p.kind == m.programs[i].kind && k <= i {
			same++
		}
	}
	return fmt.Sprintf("%s %d", [...]string{"mint", "create", "change", "reader", "archiver", "move"}[m.programs[i].kind], same)
}

// next is everything that may happen in s.
func (m *machine) next(s state) []step {
	m.steps = m.steps[:0]
	for i, p := range m.programs {
		at := s.process[i].at
		if at == done {
			continue
		}
		s := s
		if q := &s.process[i]; at == start && !q.begun && p.kind != archiving {
			q.begun, q.since = true, s.acknowledged
		}
		before := len(m.steps)
		switch p.kind {
		case minting:
			m.mint(s, i, p)
		case choosing:
			m.choose(s, i, p)
		case changing:
			m.change(s, i, p)
		case reading:
			m.read(s, i)
		case archiving:
			m.archive(s, i)
		case moving:
			m.move(s, i)
		}
		if m.say {
			for k := range m.steps[before:] {
				m.steps[before+k].what = m.name(i) + " " + m.steps[before+k].what
			}
		}
		if s.crashes < m.crashes && at != start {
			t := s
			t.crashes++
			t.process[i] = process{}
			if p.kind != archiving && p.kind != moving { // which begin anew
				t.process[i].at = done
				t.crashed = true
			}
			m.step(t, "%s crashes", m.name(i))
		}
	}
	m.happen(s)
	return m.steps
}

// happen is what happens by itself.
func (m *machine) happen(s state) {
	if s.record.there() && s.ttl != none {
		t := s
		t.record, t.ttl = record{}, none
		m.step(t, "Redis evicts %v", s.record)
	}
	if s.pass {
		t := s
		t.dropPass()
		m.step(t, "Redis forgets the pass")
	}
	if m.sweeps(s) {
		t := s
		t.mark()
		m.step(t, "the sweep marks %v", s.record)
	}
	if m.grace && !s.graceOver && s.archived().value == deleted && !s.record.there() {
		t := s
		t.graceOver, t.latest, t.acknowledged = true, record{}, 0
		for i := range t.process { // whatever began before gave up long ago, but for what it may still send
			t.process[i].since = 0
		}
		m.step(t, "30 days pass")
	}
	if m.late && !s.repeated && !s.record.there() && s.process[0].at == done { // the mint
		t := s
		t.repeated = true
		t.record = record{order: 1, value: m.programs[0].value}
		m.step(t, "the first try of mint 1 sets %v", t.record)
	}
	if m.loss && !s.lost {
		t := s
		t.lost = true
		t.redis = redis{latest: s.archived(), marked: s.marked}
		m.forget(&t)
		m.step(t, "Redis loses everything")
	}
	if m.failover && !s.copied {
		t := s
		t.copied, t.copy, t.samePass = true, s.redis, s.pass
		for i := range t.process {
			t.process[i].copied = s.process[i].pass
		}
		m.step(t, "the replica stops hearing of writes")
	}
	if m.failover && s.copied && !s.failedOver {
		t := s
		t.failedOver = true
		t.redis, t.copy, t.samePass = s.copy, redis{}, false
		if s.archived().order > t.latest.order {
			t.other = s.archived()
		}
		t.loose = true
		m.forget(&t)
		m.step(t, "the replica becomes the master")
	}
}

// sweeps reports whether a sweep finds something to mark in s: a link without a time to live, after
// a crash, or one that is not as its row, after Redis lost writes.
func (m *machine) sweeps(s state) bool {
	if s.marks != [maxMarks]uint8{} || !s.record.there() {
		return false
	}
	behind := s.loose && !m.neverVerified
	return (s.crashed && !m.neverSwept || behind) && s.ttl == none || behind && !s.record.same(s.archived())
}

// forget is what a loss of writes in Redis means to the processes and to what may be asked of them.
func (m *machine) forget(t *state) {
	t.acknowledged = 0
	for i, p := range m.programs {
		q := &t.process[i]
		q.since, q.pass, q.copied = 0, q.copied && t.pass, false
		if p.kind == archiving && q.record.there() {
			t.loose = true
			if !m.inFlight {
				*q = process{} // the archivers begin anew, too
				t.loose = t.failedOver
			}
		} else if q.at == addMark {
			q.record = record{} // what was written is gone, although it will be acknowledged
		}
	}
}

func (s *state) dropPass() {
	s.pass, s.samePass = false, false
	for i := range s.process {
		s.process[i].pass = false
	}
}

// mark adds an entry to the outbox.
func (s *state) mark() {
	s.marked++
	for i, m := range s.marks {
		if m == 0 {
			s.marks[i] = s.marked
			return
		}
	}
	s.broken = crowded
}

func (s *state) unmark(mark uint8) {
	left := s.marks
	s.marks = [maxMarks]uint8{}
	n := 0
	for _, m := range left {
		if m != 0 && m != mark {
			s.marks[n] = m
			n++
		}
	}
}

// end ends a process.
func (s *state) end(i int) *process {
	s.process[i] = process{at: done}
	return &s.process[i]
}

func (s *state) acknowledge(i int) {
	s.acknowledged = max(s.acknowledged, s.process[i].record.order)
	s.end(i)
}

// broke notes the first invariant that broke, of those asked for.
func (m *machine) broke(s *state, v invariant) {
	if s.broken == nothing && (m.only == nothing || m.only == v) {
		s.broken = v
	}
}

// write puts a record of process i in Redis, which is a create or a change.
func (m *machine) write(s *state, i int, value, number uint8, create bool) {
	switch {
	case create && s.latest.there() && !s.loose:
		m.broke(s, overwritten)
	case !create && !s.record.is(s.latest) && !s.loose:
		m.broke(s, outdated)
	}
	s.order++
	if m.noNumbers {
		number = 0
	}
	s.record = record{s.order, value, number}
	s.latest, s.other = s.record, record{}
	switch {
	case m.graceAtOnce && value == deleted:
		s.ttl = archived
	case !m.keepTTL:
		s.ttl = none
	}
	if minted := m.programs[i].kind == minting; !minted && !(create && m.createKeepsPass) && !(!create && m.changeKeepsPass) {
		s.dropPass()
	}
	s.process[i].record = s.record
}

// mint stores a link under a code that nobody else has, or should have.
func (m *machine) mint(s state, i int, p program) {
	t := s
	if at := s.process[i].at; s.record.there() && at != addMark {
		t.end(i)
		m.step(t, "collides and mints another code")
		return
	}
	switch s.process[i].at {
	case start:
		if m.apart {
			t := s
			t.mark()
			t.process[i].at = put
			m.step(t, "marks")
		}
		m.write(&t, i, p.value, 0, true)
		t.process[i].at = addMark
		m.step(t, "sets %v", t.record)
	case put:
		m.write(&t, i, p.value, 0, true)
		t.acknowledge(i)
		m.step(t, "sets %v: 201", t.record)
	case addMark:
		t.mark()
		t.acknowledge(i)
		m.step(t, "marks: 201")
	}
}

// choose stores a link under a code that somebody may have.
func (m *machine) choose(s state, i int, p program) {
	t := s
	q := &t.process[i]
	switch q.at {
	case start:
		if s.record.there() {
			t.end(i)
			m.step(t, "finds %v in Redis: 409", s.record)
			return
		}
		switch q.at = takePass; {
		case m.noFence:
			q.at = put
		case m.lookUpAlone, m.reserves:
			q.at = askArchive
		}
		m.step(t, "finds nothing in Redis")
	case takePass:
		m.takePass(s, i)
	case askArchive, askOther:
		row, more := m.ask(&t, i)
		switch {
		case more:
			m.step(t, "finds %v in one home", row)
		case row.there() && !s.isOver(row):
			t.end(i)
			m.step(t, "finds %v in the archive: 409", row)
		case m.reserves && s.reserved != 0 && !m.takesOver:
			t.end(i)
			m.step(t, "finds the code reserved: 409")
		default:
			q.row, q.at = row, put
			if m.reserves {
				t.reserved = uint8(i + 1)
			}
			m.step(t, "finds the code free in the archive")
		}
		m.failure(s, i, put)
	case put:
		switch {
		case s.record.there():
			t.end(i)
			m.step(t, "finds %v in Redis: 409", s.record)
		case !q.pass && !m.noFence && !m.lookUpAlone && !m.reserves:
			t.again(i)
			m.step(t, "finds its pass gone")
		default:
			number := uint8(0)
			if q.row.there() && !m.againFromZero {
				number = q.row.number + 1
			}
			m.write(&t, i, p.value, number, true)
			q.at, q.pass, q.copied, q.row = addMark, false, false, record{}
			m.step(t, "sets %v", t.record)
		}
	case addMark:
		t.mark()
		t.acknowledge(i)
		m.step(t, "marks: 201")
	}
}

func (s *state) isOver(r record) bool {
	return s.graceOver && r.value == deleted && r.number == s.archived().number
}

// takePass takes the pass, or shares the one that is out, if there is still no record: then it
// begins anew.
func (m *machine) takePass(s state, i int) {
	t := s
	if s.record.there() && !m.passUnseen {
		t.again(i)
		m.step(t, "gets no pass, for there is %v now", s.record)
		return
	}
	t.pass = true
	q := &t.process[i]
	q.pass, q.copied, q.at = true, s.samePass, askArchive
	m.step(t, "takes a pass")
}

// ask asks one shard for the row, and reports whether another is to be asked. While rows move, the
// old home is asked first: what has left it since is in the new one.
func (m *machine) ask(t *state, i int) (row record, more bool) {
	q := &t.process[i]
	first, second := t.old, t.row
	if m.newThenOld {
		first, second = second, first
	}
	switch {
	case !m.grows || t.growth == grown && q.at == askArchive:
		return t.row, false
	case q.at == askArchive && m.firstFound && first.there():
		return first, false
	case q.at == askArchive:
		q.row, q.at = first, askOther
		return first, true
	}
	return q.row.orLater(second), false
}

// failure is that the archive does not answer process i.
func (m *machine) failure(s state, i int, next uint8) {
	if !m.world.failure || s.failed {
		return
	}
	s.failed = true
	if m.failureIsNone {
		m.absent(&s, i, next)
		m.step(s, "has no answer from the archive and takes that for nothing")
		return
	}
	s.end(i)
	m.step(s, "has no answer from the archive: 503")
}

// absent is that the archive has nothing for process i.
func (m *machine) absent(t *state, i int, next uint8) {
	q := &t.process[i]
	if m.programs[i].kind == choosing {
		q.row, q.at = record{}, next
		return
	}
	if q.since != 0 {
		m.broke(t, missing)
	}
	t.end(i)
}

// again begins process i anew, as often as it takes.
func (s *state) again(i int) *process {
	s.process[i] = process{begun: true, since: s.process[i].since}
	return &s.process[i]
}

// change changes a link or deletes it.
func (m *machine) change(s state, i int, p program) {
	t := s
	q := &t.process[i]
	switch q.at {
	case start:
		switch {
		case !s.record.there():
			q.at = takePass
			if m.noPass {
				q.at = askArchive
			}
			m.step(t, "finds nothing in Redis")
		case s.record.value == deleted:
			t.end(i)
			m.step(t, "finds %v: 410", s.record)
		default:
			q.record, q.at = s.record, compareAndSet
			if m.markFirst {
				t.mark()
			}
			if m.changeChecks && s.ttl == short {
				q.at = checkRow
			}
			m.step(t, "reads %v", s.record)
		}
	case compareAndSet:
		if !s.record.same(q.record) {
			t.again(i)
			m.step(t, "finds another record")
			return
		}
		m.write(&t, i, p.value, q.record.number+1, false)
		q.at = addMark
		if m.markFirst {
			t.acknowledge(i)
		}
		m.step(t, "sets %v for %v", t.record, s.record)
	case addMark:
		t.mark()
		t.acknowledge(i)
		m.step(t, "marks: 200")
	case checkRow: // of changeChecks and readAgain
		m.rowAgain(s, i, q.record)
	default:
		m.restore(s, i)
	}
}

// read follows a link.
func (m *machine) read(s state, i int) {
	t := s
	q := &t.process[i]
	switch q.at {
	case start:
		switch {
		case m.archiveFirst:
			q.row, q.at = s.row, askRedis
			m.step(t, "finds %v in the archive", s.archived())
		case s.record.there():
			m.answer(&t, i, s.record)
			m.step(t, "finds %v in Redis", s.record)
		default:
			q.at = takePass
			if m.noPass {
				q.at = askArchive
			}
			m.step(t, "finds nothing in Redis")
		}
	case askRedis:
		found := s.record
		if !found.there() {
			found = q.row
		}
		m.answer(&t, i, found)
		m.step(t, "finds %v in Redis", s.record)
	default:
		m.restore(s, i)
		for k := range m.programs {
			if other := s.process[k]; m.joinsLate && q.at == takePass && m.programs[k].kind == reading && other.at == put {
				t := s
				t.process[i] = process{at: put, pass: other.pass, row: other.row, begun: true, since: q.since}
				m.step(t, "joins %s", m.name(k))
			}
		}
	}
}

// answer ends a read with what it found.
func (m *machine) answer(t *state, i int, found record) {
	switch since := t.process[i].since; {
	case since == 0 || found.order >= since || t.loose:
	case !found.there():
		m.broke(t, missing)
	case t.latest.value == deleted && found.value != deleted:
		m.broke(t, resurrected)
	default:
		m.broke(t, stale)
	}
	t.end(i)
}

// restore brings a link back from the archive.
func (m *machine) restore(s state, i int) {
	t := s
	q := &t.process[i]
	follows := m.programs[i].kind == reading
	switch q.at {
	case takePass:
		m.takePass(s, i)
	case askArchive, askOther:
		row, more := m.ask(&t, i)
		switch {
		case more:
		case row.there() && !s.isOver(row):
			q.row, q.at, q.lock = row, put, m.rowLock
		default:
			m.absent(&t, i, 0)
		}
		m.step(t, "finds %v in the archive", row)
		m.failure(s, i, 0)
	case put:
		if q.lock && m.lockEnds {
			t := s
			t.process[i].lock = false
			m.step(t, "loses its lock")
		}
		q.lock = false
		stored := !s.record.there() && (q.pass || m.noPass)
		if stored {
			t.record, t.ttl = q.row, short
			if m.restoreForLong {
				t.ttl = archived
			}
			if t.record.order == s.other.order {
				t.latest = t.record
			}
		}
		switch {
		case stored && m.readAgain:
			q.at, q.record = checkRow, q.row
		case follows:
			m.answer(&t, i, q.row)
		default:
			t.again(i)
		}
		if stored {
			m.step(t, "restores %v", t.record)
		} else {
			m.step(t, "may not restore")
		}
	case checkRow:
		m.rowAgain(s, i, q.record)
	case takeBack:
		if s.record.same(q.record) && s.ttl != none {
			t.record, t.ttl = record{}, none
		}
		if follows {
			t.end(i)
		} else {
			t.again(i)
		}
		m.step(t, "takes back what it restored")
	}
}

// rowAgain is the second look of readAgain and changeChecks at the row.
func (m *machine) rowAgain(s state, i int, was record) {
	q := &s.process[i]
	switch {
	case !s.row.same(was):
		q.at = takeBack
	case m.programs[i].kind == reading:
		s.end(i)
	case q.row.there(): // it restored the record itself
		q = s.again(i)
		q.record, q.at = was, compareAndSet
	default:
		q.at = compareAndSet
	}
	m.step(s, "looks again: the archive has %v", s.row)
}

// archive brings what is marked to the archive. A process may take any mark: one that is new, one
// of an archiver that died, and one of an archiver that is thought dead and is slow.
func (m *machine) archive(s state, i int) {
	t := s
	q := &t.process[i]
	switch q.at {
	case start:
		for _, mark := range s.marks {
			if mark == 0 {
				break
			}
			t := s
			t.process[i] = process{at: read, mark: mark}
			if m.unmarkFirst {
				t.unmark(mark)
			}
			m.step(t, "takes mark %d", mark)
		}
	case read:
		q.record, q.row, q.at = s.record, record{}, upsert
		if !s.record.there() {
			if m.ahead(s) && !m.impatient {
				return // it tries again for longer than a create may take
			}
			q.at = unmark
		}
		m.step(t, "reads %v", s.record)
	case upsert:
		for _, other := range s.process {
			if other.lock {
				return // it waits
			}
		}
		m.upsert(t, i)
	case compareRow:
		m.compareRow(t, i)
	case expire:
		was := q.record
		// Another record has a mark of its own, or the sweep will see it.
		q.record, q.at = record{}, unmark
		if s.ttl == none && (s.record.same(was) || m.expireAnything && s.record.there()) {
			t.ttl = archived
			m.step(t, "gives %v a time to live", s.record)
		} else {
			m.step(t, "finds nothing to expire")
		}
	case settle:
		q.at = read
		if s.record.same(q.record) {
			if s.ttl != none || s.record.number == 0 && q.row.number > 0 || m.rowWins {
				t.record, t.ttl = q.row, short
			} else {
				t.record.number = q.row.number + 1
			}
			t.dropPass()
			if t.record.order == s.other.order {
				t.latest = t.record
			}
			if !s.loose {
				m.broke(&t, unexpected)
			}
		}
		q.record, q.row = record{}, record{}
		m.step(t, "settles: Redis has %v", t.record)
	case unmark:
		t.unmark(q.mark)
		*q = process{}
		m.step(t, "deletes the mark")
	}
}

// move has shards know that there is one more, and brings a row home.
func (m *machine) move(s state, i int) {
	t := s
	q := &t.process[i]
	switch q.at {
	case start:
		switch {
		case s.growth < growing:
			t.growth++
			m.step(t, "tells shards of the new one")
			return
		case !s.old.there():
			t.growth = grown
			t.end(i)
			m.step(t, "finds nothing to move")
			return
		case m.deleteFirst:
			t.old = record{}
		}
		q.begun, q.record, q.at = false, s.old, upsert
		m.step(t, "reads %v", s.old)
	case upsert:
		if q.at = unmark; !t.row.there() || t.row.number < q.record.number {
			t.row = q.record
		}
		m.step(t, "copies %v", q.record)
	case unmark:
		moved := q.record
		if t.old == moved {
			t.old = record{}
		}
		*q = process{}
		m.step(t, "deletes %v", moved)
	}
}

// ahead reports whether a mark of s may be there before its link.
func (m *machine) ahead(s state) bool {
	for i := range m.programs {
		if m.programs[i].kind == minting && s.process[i].at == put {
			return true
		}
	}
	return false
}

// upsert writes what process i read to the home of the row. An archiver learns from the shards, each
// for itself, that there is a new home.
func (m *machine) upsert(s state, i int) {
	switch {
	case !m.grows:
		m.upsertAt(s, i, (*state).home)
		return
	case s.growth < growing || m.unfenced:
		m.upsertAt(s, i, (*state).oldHome)
	}
	if s.growth > before {
		m.upsertAt(s, i, (*state).home)
	}
}

func (s *state) home() *record    { return &s.row }
func (s *state) oldHome() *record { return &s.old }

func (m *machine) upsertAt(t state, i int, home func(*state) *record) {
	q, row := &t.process[i], home(&t)
	newer := row.number < q.record.number
	switch {
	case m.markNumbers:
		newer = t.rowMark < q.mark
	case m.noNumbers: // not even a guard that knows the order helps
		newer = row.order < q.record.order
	}
	if !row.there() || newer || m.unguarded {
		*row, t.rowMark, t.reserved = q.record, q.mark, 0
		q.at = expire
		m.step(t, "upserts %v", q.record)
		return
	}
	q.at = compareRow
	m.step(t, "may not upsert %v", q.record)
}

// compareRow looks at the row that refused an upsert.
func (m *machine) compareRow(t state, i int) {
	q, row := &t.process[i], t.archived()
	switch {
	case !row.there():
		q.at = read // it moves
	case row.same(q.record), m.refusedIsArchived:
		q.at = expire
	case m.markNumbers, m.noNumbers:
		t.mark()
		q.record, q.at = record{}, unmark
	case m.refusedIsDone:
		q.record, q.at = record{}, unmark
	default:
		q.row, q.at = row, settle
	}
	m.step(t, "finds the row %v", row)
}
