/** What an op needs to know beside its inputs. Plain data, so that plans can be keyed, stored and sent to threads. */
export type Attributes = Readonly<Record<string, number | boolean | string | readonly number[]>>;
