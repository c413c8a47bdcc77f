# Included by the client's CMakeLists.txt in the place of main.cmake, which compiles: executables that do nothing, and the targets
# of main.cmake that the recipe installs with.
foreach(name mender-auth mender-update)
  file(WRITE ${CMAKE_BINARY_DIR}/${name} "#!/bin/sh\n")
  install(PROGRAMS ${CMAKE_BINARY_DIR}/${name} DESTINATION bin COMPONENT executables)
endforeach()
add_custom_target(install-bin
  COMMAND ${CMAKE_COMMAND} -DCMAKE_INSTALL_COMPONENT=executables -P ${CMAKE_BINARY_DIR}/cmake_install.cmake)
add_custom_target(install-dbus)
add_dependencies(install-dbus install-dbus-interface-files install-dbus-policy-files)
