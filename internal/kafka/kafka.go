// Package kafka carries clicks through Kafka: from it others can be fed, such as ClickHouse, Flink or
// a lake. docs/clicks-kafka.md describes the records for them.
//
// It holds two decisions. A record is one count of one link, keyed by the code, so that who reads
// them need not know of batches. And what applies records knows them by their offsets: Kafka numbers
// what it carries, and gives each partition to one receiver, in order. So a store need only remember
// the last offset of each partition to count everything once.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"snowlink/internal/clicks"
	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/outage"
)

var _ clicks.Queue = (*Queue)(nil)

// DefaultTopic is the topic of clicks.
const DefaultTopic = "snowlink.clicks"

const (
	// Partitions is how many a topic has that the server makes. At most as many receivers share it.
	Partitions = 12
	// keepFor is for how long such a topic keeps its records, applied or not.
	keepFor = 7 * 24 * time.Hour

	// operationTime is how long an operation may take if its context has no deadline.
	operationTime = 10 * time.Second
	// pollMost bounds the records that a receiver has in hand.
	pollMost = 10_000
	// sessionTime is how long the partitions of a receiver that died wait for another one.
	sessionTime = 10 * time.Second
	// commitTime bounds a commit. Without it, records are given again.
	commitTime = 5 * time.Second
	// leaveTime is for how long a receiver that stops tells the others so.
	leaveTime = 2 * time.Second
	// backOff is for how long a receiver rests when something failed: twice as long each time, up to
	// backOffMost.
	backOff     = 100 * time.Millisecond
	backOffMost = 5 * time.Second
)

// Queue is a clicks.Queue over a topic. All methods may be called concurrently.
type Queue struct {
	topic    string
	opts     []kgo.Opt
	client   *kgo.Client // sends, and asks for lags
	admin    *kadm.Client
	log      *slog.Logger
	away     *outage.Outage
	applying *outage.Outage
	metrics  *clicks.QueueMetrics

	mu      sync.Mutex
	made    kadm.TopicID // of the topic, once it is known to be there
	there   bool
	sending map[batchID]*sending
	lost    error // why the last connection failed; nil if none did
}

// Open makes a Queue over the topic of brokers: see [ParseBrokers]. It does not connect. A topic that
// is missing is made when it is first needed. Its consumer group has the name of the topic. Its
// collectors are registered with reg.
func Open(brokers, topic string, log *slog.Logger, reg prometheus.Registerer) (*Queue, error) {
	opts, err := ParseBrokers(brokers)
	if err != nil {
		return nil, err
	}
	q := &Queue{
		topic: topic, log: log, away: outage.New(log, "kafka"), applying: outage.New(log, "the applying of clicks"),
		sending: make(map[batchID]*sending),
	}
	q.opts = append(opts, kgo.ClientID("snowlink"), kgo.WithHooks(connects{q}), kgo.DialTimeout(3*time.Second),
		// Once Kafka is back, or a topic is there, clicks need not wait for long [5 s, 5 s].
		kgo.MetadataMinAge(500*time.Millisecond),
		kgo.RetryBackoffFn(func(fails int) time.Duration {
			pause := min(backOff<<min(fails, 10), time.Second)
			return pause/2 + rand.N(pause/2)
		}),
		// The telemetry that a broker may ask for is not ours to give.
		kgo.DisableClientMetrics())
	// Tries again, for ever and in order, under a number by which the broker knows what it has. That
	// all in-sync replicas have a record is the default, and so is the idempotent producer.
	q.client, err = kgo.NewClient(append(slices.Clone(q.opts), kgo.DefaultProduceTopic(topic),
		kgo.MaxBufferedRecords(1<<30), // sending is what is bounded
		kgo.ProducerLinger(0))...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	q.admin = kadm.NewClient(q.client)
	q.metrics = clicks.NewQueueMetrics(reg)
	return q, nil
}

// Close closes the connections. What was sent and is not acknowledged is given up.
func (q *Queue) Close() { q.client.Close() }

// connects tells a Queue how connecting goes. While Kafka is away, the client reports nothing else.
type connects struct{ *Queue }

func (c connects) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	c.mu.Lock()
	c.lost = err
	c.mu.Unlock()
	if err != nil {
		c.away.Observed(err)
	} else {
		c.away.Ended()
	}
}

// unavailable takes note that something failed, and returns an error that wraps link.ErrUnavailable.
func (q *Queue) unavailable(did string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		q.mu.Lock()
		if q.lost != nil {
			err = fmt.Errorf("%w (%w)", err, q.lost)
		}
		q.mu.Unlock()
	}
	if !errors.Is(err, context.Canceled) {
		q.away.Observed(err)
	}
	return fmt.Errorf("kafka: %s: %w: %w", did, link.ErrUnavailable, err)
}

func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// ensure sees that there is a topic, and returns its ID. All zeros are the ID of a broker that has
// none.
func (q *Queue) ensure(ctx context.Context) (kadm.TopicID, error) {
	q.mu.Lock()
	made, there := q.made, q.there
	q.mu.Unlock()
	if there {
		return made, nil
	}
	id, err := q.lookUp(ctx)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		id, err = q.makeTopic(ctx)
	}
	for errors.Is(err, kerr.TopicAlreadyExists) || errors.Is(err, kerr.UnknownTopicOrPartition) {
		// Somebody was faster; not every broker may know of it yet.
		if !deadline.Sleep(ctx, backOff) {
			break
		}
		id, err = q.lookUp(ctx)
	}
	if err != nil {
		return id, q.unavailable("look for the topic "+q.topic+", or make it", err)
	}
	q.mu.Lock()
	q.made, q.there = id, true
	q.mu.Unlock()
	return id, nil
}

func (q *Queue) lookUp(ctx context.Context) (kadm.TopicID, error) {
	details, err := q.admin.ListTopics(ctx, q.topic)
	if err == nil {
		err = details.Error()
	}
	return details[q.topic].ID, err
}

func (q *Queue) makeTopic(ctx context.Context) (kadm.TopicID, error) {
	text := func(s string) *string { return &s }
	made, err := q.admin.CreateTopic(ctx, Partitions, -1, map[string]*string{
		"retention.ms": text(strconv.FormatInt(keepFor.Milliseconds(), 10)),
		// So that the age of what waits is by one clock.
		"message.timestamp.type": text("LogAppendTime"),
	}, q.topic)
	if err == nil {
		q.log.Info("made a topic", "topic", q.topic, "partitions", made.NumPartitions)
	}
	return made.ID, err
}

// forget has the topic looked for anew: it is gone, or there is another under its name.
func (q *Queue) forget(err error) {
	if gone(err) {
		q.mu.Lock()
		q.there = false
		q.mu.Unlock()
		q.client.PurgeTopicsFromProducing(q.topic)
	}
}

func gone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// batchID is what a batch is known by.
type batchID struct {
	producer string
	number   uint64
}

// sending is a batch on its way. Once done is closed nothing changes any more.
type sending struct {
	done chan struct{} // closed when each record is acknowledged or has failed

	mu     sync.Mutex
	left   int
	failed []*kgo.Record
	err    error // why they failed; nil if none did
}

func (s *sending) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Send is that of clicks.Queue: all in-sync replicas have the batch then. What its context gives up,
// the Queue does not: it goes on to send the batch, and a Send of the same batch waits for that. So
// the topic has each record once, even if an acknowledgement was lost and the record was sent again.
//
// There are exceptions, in which a record could come twice and counts twice. franz-go gives a
// record up, whether it has arrived or not, when brokers say five times that they do not know
// the topic; it is sent as a new one then, since the topic may be another. A broker forgets a
// producer that sent nothing for a day (producer.id.expiration.ms): a record on its way through
// all that time could come twice. So could one whose first copy the brokers lost, by an election
// of a replica that was not in sync, and found again. And if the process dies, the topic has
// what was acknowledged of its last batch, and no more: nobody else has the rest.
func (q *Queue) Send(ctx context.Context, b *clicks.Batch) error {
	ctx, cancel := limit(ctx, operationTime)
	defer cancel()
	err := q.send(ctx, b)
	if err != nil {
		q.metrics.Refused.Inc()
		return err
	}
	q.away.Ended()
	q.metrics.Sent.Inc()
	return nil
}

func (q *Queue) send(ctx context.Context, b *clicks.Batch) error {
	if _, err := q.ensure(ctx); err != nil {
		return err
	}
	s, err := q.start(b)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return q.unavailable("send clicks", ctx.Err())
	case <-s.done:
	}
	if s.err != nil {
		q.forget(s.err)
		return q.unavailable("send clicks", s.err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if id := (batchID{b.Producer, b.Number}); q.sending[id] == s {
		delete(q.sending, id)
	}
	return nil
}

// start sends what is not on its way of the batch. It returns once all is.
func (q *Queue) start(b *clicks.Batch) (*sending, error) {
	id := batchID{b.Producer, b.Number}
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.sending[id]
	var records []*kgo.Record
	switch {
	case s == nil:
		messages, err := messages(b)
		if err != nil {
			return nil, err // it cannot be: everything in a batch can be encoded
		}
		for _, m := range messages {
			records = append(records, &kgo.Record{Key: m.key, Value: m.value})
		}
		if err := q.makeRoom(); err != nil {
			return nil, err
		}
	case s.isDone() && s.err != nil:
		records = s.failed
	default:
		return s, nil
	}
	s = &sending{done: make(chan struct{}), left: len(records)}
	q.sending[id] = s
	if len(records) == 0 {
		close(s.done)
	}
	for _, r := range records {
		// Not with the context of the caller: a record that was given up may have arrived.
		q.client.Produce(context.Background(), &kgo.Record{Key: r.Key, Value: r.Value}, s.acknowledged)
	}
	return s, nil
}

// makeRoom keeps sending bounded. Batches that nobody sends again are given up when there are others.
func (q *Queue) makeRoom() error {
	if len(q.sending) < clicks.ReorderMost {
		return nil
	}
	for id, s := range q.sending {
		if s.isDone() && s.err == nil {
			delete(q.sending, id)
			return nil
		}
	}
	return fmt.Errorf("kafka: send clicks: %w: %d batches are on their way", clicks.ErrQueueFull, len(q.sending))
}

func (s *sending) acknowledged(r *kgo.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed, s.err = append(s.failed, r), err
	}
	if s.left--; s.left == 0 {
		close(s.done)
	}
}

// Receive is that of clicks.Queue. It gives Ordered batches, one for each partition. The number of a
// count is the offset of its record, plus one: the first is 1.
func (q *Queue) Receive(ctx context.Context, apply func(context.Context, []clicks.Batch) error) error {
	for pause := backOff; ctx.Err() == nil; pause = min(2*pause, backOffMost) {
		began := time.Now()
		err := q.receive(ctx, apply)
		if ctx.Err() != nil {
			break
		}
		q.forget(err)
		if time.Since(began) > time.Minute {
			pause = backOff
		}
		deadline.Sleep(ctx, pause)
	}
	return nil
}

// receive is Receive while the topic is the same.
func (q *Queue) receive(ctx context.Context, apply func(context.Context, []clicks.Batch) error) error {
	limited, cancel := limit(ctx, operationTime)
	id, err := q.ensure(limited)
	cancel()
	if err != nil {
		return err
	}
	r := receiver{Queue: q, id: id, apply: apply, given: make(map[int32]int64), applied: make(map[int32]*kgo.Record)}
	r.client, err = kgo.NewClient(append(slices.Clone(q.opts), kgo.OnPartitionsRevoked(r.lose), kgo.OnPartitionsLost(r.lose),
		kgo.ConsumerGroup(q.topic), kgo.ConsumeTopics(q.topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(sessionTime), kgo.HeartbeatInterval(sessionTime/4), kgo.DisableAutoCommit(),
		// Rather too much than too little: what was applied is left out.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(1<<20))...)
	if err != nil {
		return q.unavailable("receive clicks", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		_ = r.client.LeaveGroupContext(ctx) // or the group waits for it for sessionTime
		r.client.Close()
	}()

	for ctx.Err() == nil {
		fetches := r.poll(ctx)
		if ctx.Err() != nil {
			break
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) {
				continue // nothing came
			}
			err := q.unavailable("receive clicks", e.Err)
			if gone(e.Err) {
				return err
			}
		}
		if !r.round(ctx, fetches) {
			break
		}
	}
	return nil
}

// receiver is a member of the consumer group.
type receiver struct {
	*Queue
	id     kadm.TopicID
	client *kgo.Client
	apply  func(context.Context, []clicks.Batch) error
	given  map[int32]int64 // by partition, the last offset that was given

	mu      sync.Mutex
	applied map[int32]*kgo.Record // by partition, the last one that is not committed
}

// poll waits for records: not for ever, if there is something to commit.
func (r *receiver) poll(ctx context.Context) kgo.Fetches {
	r.mu.Lock()
	if len(r.applied) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	r.mu.Unlock()
	return r.client.PollRecords(ctx, pollMost)
}

// lose forgets partitions that are another's now.
func (r *receiver) lose(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, partition := range lost[r.topic] {
		delete(r.applied, partition)
	}
}

// round applies what came. It tries until that succeeds: what follows must not be applied before. It
// returns false if ctx ended before.
func (r *receiver) round(ctx context.Context, fetches kgo.Fetches) bool {
	byPartition := make(map[int32]*clicks.Batch)
	last := make(map[int32]*kgo.Record)
	for rec := range fetches.RecordsAll() {
		b := byPartition[rec.Partition]
		if b == nil {
			b = &clicks.Batch{Producer: r.producer(rec.Partition), Ordered: true}
			byPartition[rec.Partition] = b
		}
		last[rec.Partition] = rec
		r.metrics.Received.Inc()
		if given, ok := r.given[rec.Partition]; ok && rec.Offset <= given {
			r.metrics.Repeated.Inc()
		}
		r.given[rec.Partition] = rec.Offset
		if err := addTo(b, rec.Value, uint64(rec.Offset)+1); err != nil {
			r.metrics.Unreadable.Inc()
			r.log.Error("a record of clicks cannot be read, and is not counted",
				"topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "err", err)
		}
	}
	var batches []clicks.Batch
	for _, b := range byPartition {
		if len(b.Counts)+len(b.Misses) > 0 {
			batches = append(batches, *b)
		}
	}
	for pause := backOff; len(batches) > 0; pause = min(2*pause, backOffMost) {
		err := r.apply(ctx, batches)
		if err == nil {
			r.applying.Ended()
			break
		}
		if ctx.Err() != nil {
			return false
		}
		r.applying.Observed(err)
		if !deadline.Sleep(ctx, pause) {
			return false
		}
		r.metrics.Repeated.Add(float64(fetches.NumRecords()))
	}
	r.mu.Lock()
	maps.Copy(r.applied, last)
	r.mu.Unlock()
	r.commit(ctx)
	return true
}

// producer is what numbers the records of a partition. A topic that is made anew under the same name,
// or in another Kafka, numbers from the start again, and has another ID.
func (r *receiver) producer(partition int32) string {
	p := fmt.Sprintf("kafka:%s/%d", r.topic, partition)
	if r.id != (kadm.TopicID{}) {
		p += "@" + r.id.String()
	}
	return p
}

// commit says what was applied. With an offset goes the time of the record, for Lag. If it fails, it is
// tried again later. Records may be given again then.
func (r *receiver) commit(ctx context.Context) {
	r.mu.Lock()
	applied := maps.Clone(r.applied)
	r.mu.Unlock()
	if len(applied) == 0 {
		return
	}
	offsets := make(map[int32]kgo.EpochOffset)
	for partition, rec := range applied {
		offsets[partition] = kgo.EpochOffset{Epoch: rec.LeaderEpoch, Offset: rec.Offset + 1}
	}
	// What is done is done, even if ctx has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				if rec := applied[p.Partition]; rec != nil {
					at := strconv.FormatInt(rec.Timestamp.UnixMilli(), 10)
					p.Metadata = &at
				}
			}
		}
		return nil
	})
	r.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err == nil { // else there may be no response
				for _, t := range resp.Topics {
					for _, p := range t.Partitions {
						err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
					}
				}
			}
			if err != nil {
				_ = r.unavailable("commit what was applied of the clicks", err) // which takes note
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for partition, rec := range applied {
				if r.applied[partition] == rec {
					delete(r.applied, partition)
				}
			}
		})
}

// Lag is that of clicks.Queue. For batches it has the records.
func (q *Queue) Lag(ctx context.Context) (clicks.Lag, error) {
	ctx, cancel := limit(ctx, operationTime)
	defer cancel()
	lag, err := q.lag(ctx)
	if err != nil {
		return clicks.Lag{}, q.unavailable("look how far clicks are behind", err)
	}
	return lag, nil
}

func (q *Queue) lag(ctx context.Context) (lag clicks.Lag, err error) {
	ends, err := q.admin.ListEndOffsets(ctx, q.topic)
	if errors.Is(err, kerr.UnknownTopicOrPartition) || len(ends[q.topic]) == 0 && err == nil {
		return lag, nil // nothing was ever sent
	}
	if err == nil {
		err = ends.Error()
	}
	if gone(err) {
		return lag, nil
	}
	starts, err2 := q.admin.ListStartOffsets(ctx, q.topic)
	commits, err3 := q.admin.FetchOffsets(ctx, q.topic)
	if errors.Is(err3, kerr.GroupIDNotFound) { // nothing was ever received
		err3 = nil
	}
	if err := errors.Join(err, err2, err3, starts.Error()); err != nil {
		return lag, err
	}

	// The oldest record that waits is the first after the last that was applied.
	ask := kmsg.NewListOffsetsRequestTopic()
	ask.Topic = q.topic
	after := make(map[int32]int64) // the time of what was applied last
	ends.Each(func(end kadm.ListedOffset) {
		from := int64(0)
		if start, ok := starts.Lookup(q.topic, end.Partition); ok {
			from = start.Offset
		}
		if commit, ok := commits.Lookup(q.topic, end.Partition); ok {
			from = max(from, commit.At)
			after[end.Partition], _ = strconv.ParseInt(commit.Metadata, 10, 64) // 0 if it is somebody else's
		}
		if from >= end.Offset {
			return
		}
		lag.Batches += end.Offset - from
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = end.Partition, after[end.Partition]+1
		ask.Partitions = append(ask.Partitions, p)
	})
	if lag.Batches == 0 {
		return lag, nil
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.Topics = append(req.Topics, ask)
	resp, err := req.RequestWith(ctx, q.client)
	if err != nil {
		return lag, err
	}
	now := time.Now().UnixMilli()
	lag.Oldest = time.Millisecond // at least, so that it is not none
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return lag, err
			}
			if p.Timestamp >= 0 { // else it has the same time as what was applied last
				lag.Oldest = max(lag.Oldest, time.Duration(now-p.Timestamp)*time.Millisecond)
			}
		}
	}
	return lag, nil
}
