package postgrestest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	fleettest.WaitToBeKilled(func() (dir string, err error) {
		s, err := postgrestest.Start()
		if err != nil {
			return "", err
		}
		return s.Dir, nil
	})
	os.Exit(m.Run())
}

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	postgrestest.Own(t) // skips where PostgreSQL is not installed
	fleettest.NothingIsLeft(t)
}

func TestSocket(t *testing.T) {
	s := postgrestest.Own(t)
	conn, err := pgx.Connect(t.Context(), s.SocketURL())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}
