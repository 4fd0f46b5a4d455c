//! Every sentence that more than one surface shows, so that tray, window and command line say the same.
