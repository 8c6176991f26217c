/** The memory store passes the suite of the port. It has no behaviour of its own to test. */
import { storeContract } from './contract.ts';
import { createMemoryStore } from './memory.ts';

storeContract(createMemoryStore);
