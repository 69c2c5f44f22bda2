# Fails when the object file of a SIMD kernel defines anything but its one table.
# NM: the nm program. OBJECTS: the object files of sage_common.
cmake_minimum_required(VERSION 3.22)

set(seen 0)
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "(codes|distance)_(avx2|avx512|neon)")
    continue()
  endif()
  math(EXPR seen "${seen} + 1")
  execute_process(COMMAND ${NM} --extern-only --defined-only ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  list(LENGTH lines count)
  if(NOT count EQUAL 1 OR NOT symbols MATCHES "kernels")
    message(FATAL_ERROR "${object} must export exactly its kernel table, it exports ${count} symbols:\n${symbols}")
  endif()
endforeach()
if(seen EQUAL 0)
  message("No SIMD units are compiled for this machine")
endif()
