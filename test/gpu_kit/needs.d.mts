/** The libraries that a program or library needs, directly or through others, and a bare machine lacks. */
export function needs(file: string): string[];
