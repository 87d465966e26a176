// Runs the scenario that the command line names, and prints what it found as one line of JSON.

/** Each scenario goes by its function's name; what follows on the command line are its arguments. */
export async function tell(...scenarios) {
  const [name, ...given] = process.argv.slice(2);
  const scenario = scenarios.find((one) => one.name === name);
  console.log(JSON.stringify(await scenario(...given)));
}

/** The exception that this ended in, as its client tells it. */
export async function raised(act) {
  try {
    await act();
  } catch (error) {
    return {
      raised: error.constructor.name,
      name: error.name,
      status: error.status ?? error.statusCode ?? null,
      code: error.code ?? null,
      type: error.type ?? null,
      message: error.message,
      request_id: error.requestID ?? null,
    };
  }
  return { raised: null };
}
