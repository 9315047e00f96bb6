package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What XFS needs for itself comes on top of what was asked for: its log and what it holds back for its own growth.
const forFilesystem = 24 << 20

// store is the directory of images:
//
//	volumes/ID.xfs or ID.raw
//	snapshots/ID/VOLUME.xfs or VOLUME.raw   a copy of the volume it was made of
//	partial/ID...                           what is being made; moved to its place when it is whole
//
// Invariant: an image that is in its place is whole.
type store struct{ directory string }

// image is one file; its suffix tells whether it holds a file system.
type image string

func (s store) prepare() error {
	for _, kind := range []string{"volumes", "snapshots", "partial"} {
		if err := os.MkdirAll(filepath.Join(s.directory, kind), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// lock is held by one process at a time until it calls what is returned.
func (s store) lock() (func(), error) {
	directory, err := os.Open(s.directory)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(directory.Fd()), syscall.LOCK_EX); err != nil {
		directory.Close()
		return nil, err
	}
	return func() { directory.Close() }, nil
}

// checkID refuses what is no plain file name: it becomes one.
func checkID(id string) error {
	if id == "" || strings.ContainsAny(id, "/*?[\\") || strings.HasPrefix(id, ".") {
		return status.Errorf(codes.InvalidArgument, "not an ID of ours: %q", id)
	}
	return nil
}

// volume returns the image of a volume, empty when there is none.
func (s store) volume(id string) (image, error) { return s.find("volumes", id+".*") }

// snapshot returns the image of a snapshot, empty when there is none.
func (s store) snapshot(id string) (image, error) { return s.find("snapshots", id, "*") }

func (s store) find(elements ...string) (image, error) {
	for _, element := range elements[1:] {
		if err := checkID(strings.TrimSuffix(element, "*") + "x"); err != nil {
			return "", err
		}
	}
	found, err := filepath.Glob(filepath.Join(append([]string{s.directory}, elements...)...))
	if err != nil || len(found) == 0 {
		return "", err
	}
	return image(found[0]), nil
}

// place is where the image of a new volume will be.
func (s store) place(id string, filesystem bool) image {
	suffix := ".raw"
	if filesystem {
		suffix = ".xfs"
	}
	return image(filepath.Join(s.directory, "volumes", id+suffix))
}

func (i image) filesystem() bool { return filepath.Ext(string(i)) == ".xfs" }

// volumeID is the volume that the image is of, or was copied from.
func (i image) volumeID() string {
	return strings.TrimSuffix(filepath.Base(string(i)), filepath.Ext(string(i)))
}

// capacity is what a user was promised.
func (i image) capacity() (int64, error) {
	found, err := os.Stat(string(i))
	if err != nil {
		return 0, err
	}
	if i.filesystem() {
		return found.Size() - forFilesystem, nil
	}
	return found.Size(), nil
}

func (i image) made() (time.Time, error) {
	found, err := os.Stat(string(i))
	if err != nil {
		return time.Time{}, err
	}
	return found.ModTime(), nil
}

// grow makes room for so much; an image never shrinks. Devices that serve it grow with it, a file system in it does not yet.
func (i image) grow(capacity int64) error {
	has, err := i.capacity()
	if err != nil || capacity <= has {
		return err
	}
	if err := os.Truncate(string(i), capacity+i.overhead()); err != nil {
		return err
	}
	devices, err := i.devices()
	for _, device := range devices {
		if _, err := run("losetup", "--set-capacity", device); err != nil {
			return err
		}
	}
	return err
}

func (i image) overhead() int64 {
	if i.filesystem() {
		return forFilesystem
	}
	return 0
}

// makeEmpty makes a new volume.
func (s store) makeEmpty(made image, capacity int64) error {
	partial := image(filepath.Join(s.directory, "partial", filepath.Base(string(made))))
	if err := os.WriteFile(string(partial), nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(string(partial), capacity+made.overhead()); err != nil {
		return err
	}
	if made.filesystem() {
		// Without what only pays off on large disks: a test's claim is small, and should hold nearly what it says.
		if _, err := run("mkfs.xfs", "--unsupported", "-q", "-f", "-K", "-m", "reflink=0,rmapbt=0", "-l", "size=16m", string(partial)); err != nil {
			return err
		}
	}
	return os.Rename(string(partial), string(made))
}

// copyTo copies an image, sparse as it is. What a mounted file system or a device has not written yet is in the copy too.
func (s store) copyTo(source, made image) error {
	partial := filepath.Join(s.directory, "partial", filepath.Base(string(made)))
	copyImage := func() error {
		_, err := run("cp", "--sparse=always", "--reflink=auto", string(source), partial)
		return err
	}
	devices, err := source.devices()
	switch {
	case err != nil:
		return err
	case len(devices) == 0:
		err = copyImage()
	case source.filesystem():
		err = frozen(devices[0], copyImage)
	default:
		if _, err = run("sync", devices[0]); err == nil {
			err = copyImage()
		}
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(string(made)), 0o700); err != nil {
		return err
	}
	return os.Rename(partial, string(made))
}

// frozen does something while the file system on a device is whole and stands still, wherever it is mounted.
func frozen(device string, do func() error) error {
	view, err := os.MkdirTemp("", "frozen")
	if err != nil {
		return err
	}
	defer os.Remove(view)
	if _, err := run("mount", "-t", "xfs", "-o", "nouuid", device, view); err != nil {
		return err
	}
	defer run("umount", view)
	if _, err := run("fsfreeze", "--freeze", view); err != nil {
		return err
	}
	done := do()
	if _, err := run("fsfreeze", "--unfreeze", view); err != nil {
		return fmt.Errorf("%s stays frozen: %w", device, err)
	}
	return done
}

// devices are the loop devices that serve the image, whoever attached them.
func (i image) devices() ([]string, error) {
	found, err := run("losetup", "--noheadings", "--output", "NAME", "--associated", string(i))
	return strings.Fields(found), err
}

// attach returns the one loop device that serves the image: two would have two caches.
func (i image) attach() (string, error) {
	devices, err := i.devices()
	if err != nil {
		return "", err
	}
	if len(devices) > 0 {
		return devices[0], nil
	}
	return run("losetup", "--find", "--show", string(i))
}

// takeAway detaches the image although a kubelet that was killed still seems to use it: a kubelet holds a device by a loop device on
// top of it, which outlives a node.
func (i image) takeAway() error {
	devices, err := i.devices()
	if err != nil {
		return err
	}
	for _, device := range devices {
		above, err := onTopOf(device)
		if err != nil {
			return err
		}
		for _, lock := range above {
			if _, err := run("losetup", "--detach", lock); err != nil {
				return err
			}
		}
	}
	return i.letGo()
}

// onTopOf returns the loop devices that serve a device as if it were a file.
func onTopOf(device string) ([]string, error) {
	var wanted unix.Stat_t
	if err := unix.Stat(device, &wanted); err != nil {
		return nil, err
	}
	served, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range served {
		path := filepath.Join("/dev", filepath.Base(filepath.Dir(entry)))
		opened, err := os.Open(path)
		if err != nil { // gone since
			continue
		}
		serves, err := unix.IoctlLoopGetStatus64(int(opened.Fd()))
		opened.Close()
		if err == nil && serves.Rdevice == wanted.Rdev {
			found = append(found, path)
		}
	}
	return found, nil
}

// letGo detaches the image as soon as nobody uses its device any more.
func (i image) letGo() error {
	devices, err := i.devices()
	for _, device := range devices {
		if _, err := run("losetup", "--detach", device); err != nil {
			return err
		}
	}
	return err
}
