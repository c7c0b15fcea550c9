# Runs PROGRAM to write the bash completion script to OUTPUT.
execute_process(COMMAND ${PROGRAM} completion bash OUTPUT_FILE ${OUTPUT} COMMAND_ERROR_IS_FATAL ANY)
