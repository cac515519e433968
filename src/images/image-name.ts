/**
 * CRIU's image names (`tcp-stream-1a.img`, `tmpfs-dev-55.tar.gz.img`) and nothing that could leave a folder
 * (dangers.md 15). The first character is no dash, so that no tool reads a name as an option.
 */
export const imageNamePattern = /^[a-z0-9][a-z0-9-]{0,127}(?:\.tar\.gz)?\.img$/;

export function isImageName(name: string): boolean {
  return imageNamePattern.test(name);
}
