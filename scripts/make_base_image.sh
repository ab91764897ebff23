#!/usr/bin/env bash
# Make an image on which the Containerfile can build where no registry of images can be reached: Debian, with Python.
#
# Usage, as root: scripts/make_base_image.sh <name of the image>
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
# `python`, as the images of that name have it; git, so that the layer above need not fetch it again.
debootstrap --variant=minbase --include=python3,python3-venv,python-is-python3,ca-certificates,git bookworm "$folder"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder" / > /dev/null
buildah commit --quiet "$container" "$1"
buildah rm "$container" > /dev/null
