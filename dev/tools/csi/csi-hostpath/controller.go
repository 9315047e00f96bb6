package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const defaultCapacity = 1 << 30

func (*driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, capability := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: capability}}})
	}
	return answer, nil
}

// wantsFilesystem tells Filesystem from Block; a file system other than ours is refused.
func wantsFilesystem(capabilities ...*csi.VolumeCapability) (bool, error) {
	filesystem := false
	for _, capability := range capabilities {
		if mount := capability.GetMount(); mount != nil {
			filesystem = true
			if mount.FsType != "" && mount.FsType != "xfs" {
				return false, status.Errorf(codes.InvalidArgument, "volumes have XFS, not %s", mount.FsType)
			}
		}
	}
	return filesystem, nil
}

func (d *driver) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	filesystem, err := wantsFilesystem(request.VolumeCapabilities...)
	if err != nil {
		return nil, err
	}
	if err := checkID(request.Name); err != nil {
		return nil, err
	}
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.store.volume(request.Name)
	if err != nil {
		return nil, err
	}
	if volume == "" {
		volume = d.store.place(request.Name, filesystem)
		if err := d.fill(volume, request); err != nil {
			return nil, err
		}
	}
	capacity, err := volume.capacity()
	if err != nil {
		return nil, err
	}
	if volume.filesystem() != filesystem || capacity < request.CapacityRange.GetRequiredBytes() {
		return nil, status.Errorf(codes.AlreadyExists, "%s is there, of another kind or size", request.Name)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: request.Name, CapacityBytes: capacity,
		ContentSource: request.VolumeContentSource}}, nil
}

// fill makes the image of a new volume: empty, or with the content of a snapshot or another volume.
func (d *driver) fill(volume image, request *csi.CreateVolumeRequest) error {
	capacity := request.CapacityRange.GetRequiredBytes()
	if capacity == 0 {
		capacity = defaultCapacity
	}
	var source image
	var err error
	switch from := request.VolumeContentSource; {
	case from.GetSnapshot() != nil:
		source, err = d.store.snapshot(from.GetSnapshot().SnapshotId)
	case from.GetVolume() != nil:
		source, err = d.store.volume(from.GetVolume().VolumeId)
	default:
		return d.store.makeEmpty(volume, capacity)
	}
	if err != nil {
		return err
	}
	if source == "" {
		return status.Errorf(codes.NotFound, "what %s is to be made of does not exist", request.Name)
	}
	has, err := source.capacity()
	if err != nil {
		return err
	}
	if source.filesystem() != volume.filesystem() || has > capacity {
		return status.Errorf(codes.InvalidArgument, "%s does not fit its source, which has %d bytes", request.Name, has)
	}
	if err := d.store.copyTo(source, volume); err != nil {
		return err
	}
	return volume.grow(capacity)
}

func (d *driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.store.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if volume != "" {
		if err := volume.takeAway(); err != nil {
			return nil, err
		}
		if err := os.Remove(string(volume)); err != nil {
			return nil, err
		}
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	volume, err := d.known(request.VolumeId)
	if err != nil {
		return nil, err
	}
	filesystem, err := wantsFilesystem(request.VolumeCapabilities...)
	if err != nil || filesystem != volume.filesystem() {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: "of another kind"}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.VolumeCapabilities}}, nil
}

// known returns the image of a volume that must exist.
func (d *driver) known(id string) (image, error) {
	volume, err := d.store.volume(id)
	if err == nil && volume == "" {
		err = status.Errorf(codes.NotFound, "volume %s does not exist", id)
	}
	return volume, err
}

func (d *driver) ControllerExpandVolume(_ context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	volume, err := d.known(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := volume.grow(request.CapacityRange.GetRequiredBytes()); err != nil {
		return nil, err
	}
	capacity, err := volume.capacity()
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: capacity, NodeExpansionRequired: volume.filesystem()}, err
}

func (d *driver) CreateSnapshot(_ context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	snapshot, err := d.store.snapshot(request.Name)
	if err != nil {
		return nil, err
	}
	if snapshot == "" {
		volume, err := d.known(request.SourceVolumeId)
		if err != nil {
			return nil, err
		}
		snapshot = image(filepath.Join(d.store.directory, "snapshots", request.Name, filepath.Base(string(volume))))
		if err := d.store.copyTo(volume, snapshot); err != nil {
			return nil, err
		}
	}
	if snapshot.volumeID() != request.SourceVolumeId {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is of volume %s", request.Name, snapshot.volumeID())
	}
	capacity, err := snapshot.capacity()
	if err != nil {
		return nil, err
	}
	made, err := snapshot.made()
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{SnapshotId: request.Name, SourceVolumeId: request.SourceVolumeId,
		SizeBytes: capacity, CreationTime: timestamppb.New(made), ReadyToUse: true}}, err
}

func (d *driver) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	snapshot, err := d.store.snapshot(request.SnapshotId)
	if err != nil || snapshot == "" {
		return &csi.DeleteSnapshotResponse{}, err
	}
	return &csi.DeleteSnapshotResponse{}, os.RemoveAll(filepath.Dir(string(snapshot)))
}
