# A base for machines without a registry of images: a root file system that mmdebstrap made.
FROM scratch
ADD rootfs.tar /
CMD ["python3"]
