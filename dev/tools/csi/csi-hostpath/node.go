package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (*driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, capability := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: capability}}})
	}
	return answer, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

// NodeStageVolume mounts a file system; its device goes with the last mount. Of a raw volume it attaches the device.
func (d *driver) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.known(request.VolumeId)
	if err != nil {
		return nil, err
	}
	device, err := volume.attach()
	if err != nil {
		return nil, err
	}
	if !volume.filesystem() {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if isMounted, err := mounted(request.StagingTargetPath); err != nil {
		return nil, err
	} else if !isMounted {
		// A restored volume has the UUID of the one it was made of.
		if _, err := run("mount", "-t", "xfs", "-o", "nouuid", device, request.StagingTargetPath); err != nil {
			return nil, err
		}
	}
	if err := volume.letGo(); err != nil {
		return nil, err
	}
	_, err = run("xfs_growfs", "-d", request.StagingTargetPath)
	return &csi.NodeStageVolumeResponse{}, err
}

func (d *driver) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := unmount(request.StagingTargetPath); err != nil {
		return nil, err
	}
	if volume, err := d.store.volume(request.VolumeId); err != nil || volume == "" {
		return &csi.NodeUnstageVolumeResponse{}, err
	} else if err := volume.letGo(); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.known(request.VolumeId)
	if err != nil {
		return nil, err
	}
	source, target := request.StagingTargetPath, request.TargetPath
	if volume.filesystem() {
		err = os.MkdirAll(target, 0o750)
	} else if source, err = volume.attach(); err == nil {
		err = makeFile(target)
	}
	if err != nil {
		return nil, err
	}
	if isSame, err := same(source, target); err != nil {
		return nil, err
	} else if !isSame {
		if err := unmount(target); err != nil {
			return nil, err
		}
		if _, err := run("mount", "--bind", source, target); err != nil {
			return nil, err
		}
	}
	if request.Readonly && volume.filesystem() {
		_, err = run("mount", "-o", "remount,bind,ro", target)
	}
	return &csi.NodePublishVolumeResponse{}, err
}

func (*driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(request.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.known(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if volume.filesystem() {
		if isMounted, err := mounted(request.VolumePath); err != nil {
			return nil, err
		} else if !isMounted {
			return nil, status.Errorf(codes.FailedPrecondition, "%s is not mounted", request.VolumePath)
		}
		if _, err := run("xfs_growfs", "-d", request.VolumePath); err != nil {
			return nil, err
		}
	}
	capacity, err := volume.capacity()
	return &csi.NodeExpandVolumeResponse{CapacityBytes: capacity}, err
}

func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	return file.Close()
}

// mounted tells whether something is mounted on a directory, which is on another device than its parent then.
func mounted(path string) (bool, error) {
	var here, above syscall.Stat_t
	if err := syscall.Stat(path, &here); err != nil {
		return false, err
	}
	err := syscall.Stat(filepath.Dir(path), &above)
	return here.Dev != above.Dev, err
}

// same tells whether both paths lead to one directory or device.
func same(one, other string) (bool, error) {
	first, err := os.Stat(one)
	if err != nil {
		return false, err
	}
	second, err := os.Stat(other)
	return err == nil && os.SameFile(first, second), err
}

// unmount takes away all that is mounted on a path, if it exists.
func unmount(path string) error {
	for {
		switch err := syscall.Unmount(path, 0); {
		case err == nil:
		case errors.Is(err, syscall.EINVAL), errors.Is(err, fs.ErrNotExist):
			return nil
		default:
			return err
		}
	}
}
