// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// digits of a key: 256 random bits in hexadecimal.
	digits = 64

	// ofOthers are the permissions of everybody but the file's owner and group.
	ofOthers fs.FileMode = 0o007
)

// advice tells how to come by a good key file. It goes behind what is wrong with the one that is there, or why there is none.
const advice = "write %[1]d hexadecimal digits there yourself, (umask 077; openssl rand -hex %[2]d > %[3]s), " +
	"or name another file with --api-key-file"

// loadOrCreate returns the key in a file. When there is no file it makes one, with a new key, and so do all who come at the same time:
// they all return the same key.
func loadOrCreate(path string) (key string, err error) {
	key, err = load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the key file %s does not exist, and cannot be made (%w): let user %d write in its directory, or %s",
			path, err, os.Geteuid(), adviceFor(path))
	}
	key, err = load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the key file %s is a symbolic link to a file that does not exist: remove it, or %s", path, adviceFor(path))
	}
	return key, err
}

func adviceFor(path string) string { return fmt.Sprintf(advice, digits, digits/2, path) }

// load returns the key in a file that is there. What is wrong with a file is told without its content.
func load(path string) (key string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // which does not wait for the other end of a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", err
	case err != nil:
		return "", fmt.Errorf("the key file cannot be read (%w): let user %d read it, or name another file with --api-key-file",
			err, os.Geteuid())
	}
	defer func() { _ = file.Close() }()
	if err := checkMode(file); err != nil {
		return "", err
	}
	content, err := io.ReadAll(io.LimitReader(file, 2*digits))
	if err != nil {
		return "", fmt.Errorf("the key file cannot be read: %w", err)
	}
	return parse(path, string(content))
}

// checkMode refuses what is no file, and what others than its owner and group can read or change. Volumes of Kubernetes with an fsGroup
// give the group the rights of the owner.
func checkMode(file *os.File) error {
	info, err := file.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("the key file cannot be looked at: %w", err)
	case info.IsDir():
		return fmt.Errorf("the key file %s is a directory: remove it, or name a file with --api-key-file", file.Name())
	case !info.Mode().IsRegular():
		return fmt.Errorf("the key file %s is not a regular file: remove it, or name another file with --api-key-file", file.Name())
	case info.Mode().Perm()&ofOthers != 0:
		return fmt.Errorf("everybody can get at the key file %s (mode %04o), so its key is not secret any more: delete it, and the next start "+
			"makes a new key; or, if nobody has read it yet, chmod 600 it. A Secret is mounted so that only its pod can read it with "+
			"defaultMode: 0400 and the pod's fsGroup", file.Name(), info.Mode().Perm())
	}
	return nil
}

// parse returns the key in the content of a file: the digits, and the end of the line or none.
func parse(path, content string) (key string, err error) {
	key = strings.TrimSuffix(strings.TrimSuffix(content, "\n"), "\r")
	problem := ""
	if _, err := hex.DecodeString(key); len(key) < digits {
		problem = fmt.Sprintf("is too short: it holds %d characters, and a key has %d hexadecimal digits", len(key), digits)
	} else if err != nil || len(key) > digits {
		problem = fmt.Sprintf("holds something else than %d hexadecimal digits", digits)
	}
	if problem != "" {
		return "", fmt.Errorf("the key file %s %s. Delete it, and the next start makes a new key; or %s", path, problem, adviceFor(path))
	}
	return key, nil
}

// create writes a new key to a file that does not exist yet, which only its owner can read; it is there with all of its content or not at
// all. fs.ErrExist means that somebody else was faster.
func create(path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(draft.Name())) }()
	_, err = io.WriteString(draft, newKey()+"\n")
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	if err := os.Link(draft.Name(), path); err != nil { // unlike a renaming, it never replaces
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func newKey() string {
	var random [digits / 2]byte
	rand.Read(random[:]) // never fails: the program crashes when the system's source is broken
	return hex.EncodeToString(random[:])
}

// syncDirectory has a new name in a directory outlast a crash of the machine.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
