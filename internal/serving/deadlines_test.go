// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// deadlineRecorder is a ResponseWriter and a request body that record the deadlines that are set.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	reads, writes []time.Duration // from start
	start         time.Time
}

func (d *deadlineRecorder) SetReadDeadline(deadline time.Time) error {
	d.reads = append(d.reads, deadline.Sub(d.start))
	return nil
}

func (d *deadlineRecorder) SetWriteDeadline(deadline time.Time) error {
	d.writes = append(d.writes, deadline.Sub(d.start))
	return nil
}

func TestAllowSlowClients_TheDeadlineMovesAtTheMinimumRate(t *testing.T) {
	start := time.Now()
	now := start
	recorder := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder(), start: start}
	content := bytes.Repeat([]byte("x"), 10*chunkBytes)
	handler := allowSlowClients(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = r.Body.Read(make([]byte, 2<<10))
			now = now.Add(time.Second)
		}
		now = now.Add(time.Minute) // a handler that waits for something does not use up the time of its client
		if n, err := w.Write(content); n != len(content) || err != nil {
			t.Errorf("Write returned %d, %v", n, err)
		}
		now = now.Add(time.Hour)
		_, _ = io.WriteString(w, "the end")
	}), func() time.Time { return now })
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(strings.Repeat("y", 100<<10))))

	wantReads := []time.Duration{10 * time.Second, 11 * time.Second, 12 * time.Second} // 2 KiB a second are fast enough
	if fmt.Sprint(recorder.reads) != fmt.Sprint(wantReads) {
		t.Errorf("the read deadlines are %s, want %s", recorder.reads, wantReads)
	}
	first := 63 * time.Second
	if len(recorder.writes) != 11 || recorder.writes[0] != first+10*time.Second || recorder.writes[10] != first+(10+10*chunkBytes>>10)*time.Second {
		t.Errorf("the write deadlines are %s", recorder.writes)
	}
	if !bytes.Equal(recorder.Body.Bytes(), append(content, "the end"...)) {
		t.Errorf("%d bytes are written", recorder.Body.Len())
	}
}

func TestAllowSlowClients_AResponseMayTakeLongerThanTheTimeoutButNotWithoutProgress(t *testing.T) {
	t.Parallel()
	const length = 18 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), length/16)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	certificate, trust := certified(t)
	r := newRunning(t, 0)
	r.AddServer("limited", "127.0.0.1:0", certificate, handler)
	r.AddServer("slow", "127.0.0.1:0", certificate, AllowSlowClients(handler))
	r.start()
	t.Cleanup(func() { r.stop() })

	for _, protocol := range []string{protocolHTTP1, protocolHTTP2} {
		for name, c := range map[string]struct {
			server   string
			pause    time.Duration // between parts
			complete bool
		}{
			"a slow client":                   {"slow", 100 * time.Millisecond, true},
			"a slow client, other servers":    {"limited", 100 * time.Millisecond, false},
			"a client that pauses for longer": {"slow", writeTimeout + 5*time.Second, false},
		} {
			address := r.address(c.server)
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel()
				transport := &http.Transport{
					TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: protocol == protocolHTTP2, DialContext: dialWithSmallBuffer,
				}
				t.Cleanup(transport.CloseIdleConnections)
				response, err := (&http.Client{Transport: transport}).Get("https://" + address)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				start, part, total := time.Now(), make([]byte, 128<<10), 0
				for err == nil {
					var n int
					if n, err = io.ReadFull(response.Body, part); n > 0 && total < length-2*len(part) {
						time.Sleep(c.pause)
						if c.pause > writeTimeout {
							c.pause = 0 // one pause
						}
					}
					total += n
				}
				took := time.Since(start)
				if complete := total == length; complete != c.complete || took < writeTimeout {
					t.Errorf("%d of %d bytes arrived in %s, until %v", total, length, took, err)
				}
			})
		}
	}
}

// dialWithSmallBuffer keeps the kernel from receiving much that the client has not read.
func dialWithSmallBuffer(ctx context.Context, network, address string) (net.Conn, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		err = connection.(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	return connection, err
}
